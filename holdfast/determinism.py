"""The same numbers for the same job on the same machine, and a word where torch has no way to give them."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

VARIES = re.compile(r"(.+?) (?:does not have a deterministic implementation|defaults to a non-deterministic algorithm)")
"""How torch begins to warn."""


def settle_torch(threads: int) -> None:
    """A fixed number of threads and deterministic kernels. No telemetry, no bars.

    An operation without such a kernel warns and goes on (`varying`): a study whose last digits vary is worth more than
    none.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch
    from huggingface_hub import constants
    from torch.utils import deterministic
    from transformers.utils import logging

    # The variable of this name is read on import, which in a forked process has long happened.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling memory that is written next finds mistakes of torch's, and costs time.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


@contextmanager
def varying() -> Iterator[set[str]]:
    """Collect the names of operations that torch warns about; all other warnings go on."""
    names: set[str] = set()
    shown = warnings.showwarning

    def collect(message: Warning | str, *rest: object, **others: object) -> None:
        found = VARIES.match(str(message))
        if found is None:
            shown(message, *rest, **others)  # type: ignore[arg-type]
        else:
            names.add(found[1])

    warnings.showwarning = collect  # type: ignore[assignment]
    try:
        yield names
    finally:
        warnings.showwarning = shown
