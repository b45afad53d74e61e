"""What an adapter stands on stays as it was while vLLM rolls out: a digest of all that does not learn says so.

TRL merges an adapter into the weights and takes it out again, by which weights in half precision drift
(huggingface/trl#6688). Here copies are merged (`vllm_rollouts`), and this would see it if they were not.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from holdfast.config.methods import AnyStage
from holdfast.errors import UserError


@contextmanager
def unchanged(model: torch.nn.Module, stage: AnyStage, left: Path) -> Iterator[None]:
    """Of a stage with an adapter and rollouts by vLLM. UserError where a weight that does not learn is another after;
    what the training left to go on from is removed then.

    It reads the weights twice.
    """
    if stage.lora is None or not stage.trainer.get("use_vllm"):
        yield
        return
    before = digest(model)
    yield
    if digest(model) != before:
        shutil.rmtree(left, ignore_errors=True)
        raise UserError(
            "trainer.use_vllm: weights of the base, which do not learn here, are others than before the training, so "
            "its adapter belongs to no model that is kept; remove use_vllm, or install the versions of "
            "requirements-vllm.lock"
        )


def digest(model: torch.nn.Module) -> str:
    """sha256 of the names and bytes of all parameters that do not learn, in their order."""
    found = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            found.update(name.encode())
            found.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
