"""What did not fit into memory ends in one sentence that says what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from holdfast.errors import UserError

STEP = (
    "a step of the largest batch does not fit into this machine's memory; lower per_device_train_batch_size (and raise "
    "gradient_accumulation_steps), max_completion_length or model.max_pixels"
)
SAMPLES = (
    "influence: a batch of samples does not fit into this machine's memory; lower influence.batch_tokens (or "
    "influence.batch_size), which changes no training, and run the same command again"
)
ASKED = (
    "evaluation: a batch of questions does not fit into this machine's memory; lower evaluation.batch_size, or set "
    "evaluation.drift: sampled, which reads no base beside the model; neither changes a training. Then run the same "
    "command again"
)


@contextmanager
def explained(sentence: str) -> Iterator[None]:
    """UserError with the sentence where torch cannot allocate memory, on a GPU or on the host."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise UserError(sentence) from error
