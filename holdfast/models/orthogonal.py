"""An adapter that reads other directions of its modules' inputs than the adapters of the stages before it (O-LoRA).

Of peft's B·A, the rows of A are what an adapter reads. docs/mitigations.md has the formula and its source.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from holdfast.config.refs import ModelRef
from holdfast.errors import UserError

READS = ".lora_A."
LEAST = 1e-3
"""Of a row's length, what has to be left of it where others' directions are taken out; less is rounding."""


def read_before(model: Any, start: ModelRef) -> list[tuple[str, Tensor, Tensor]]:
    """Of each module its name, the rows of A that learn (rank, inputs), and those of earlier adapters (rows, inputs).

    Raises:
        UserError: no module has an adapter that had one before.
    """
    earlier: dict[str, list[Tensor]] = {}
    ref: ModelRef | None = start
    while ref is not None and ref.adapter_of is not None:
        for name, value in load_file(Path(ref.path) / "adapter_model.safetensors").items():
            if READS in name:
                earlier.setdefault(name, []).append(value.float())
        ref = ref.adapter_of
    own = {name.replace(f"{READS}default.", READS): value for name, value in model.named_parameters() if READS in name}
    found = [(name, own[name], torch.cat(rows).to(own[name].device)) for name, rows in earlier.items() if name in own]
    if not found:
        raise UserError("orthogonal: no module has an adapter that had one before; name the same lora.target_modules")
    return found


@torch.no_grad()
def turn_away(model: Any, start: ModelRef) -> None:
    """Take out of the rows of A what lies in the span of earlier adapters' rows.

    Raises:
        UserError: nothing is left of a row.
    """
    for name, rows, others in read_before(model, start):
        _, sizes, directions = torch.linalg.svd(others, full_matrices=False)
        span = directions[sizes > LEAST * sizes[0]]
        left = rows.float() - rows.float() @ span.T @ span
        if bool((left.norm(dim=1) < LEAST * rows.float().norm(dim=1)).any()):
            raise UserError(
                f"orthogonal: adapters before fill all {rows.shape[1]} inputs of {name.partition(READS)[0]}; "
                "lower lora.r"
            )
        rows.copy_(left)


class Overlap:
    """weight · Σ (A · A'ᵀ)² over modules and over the adapters A' of earlier stages."""

    def __init__(self, model: Any, weight: float, start: ModelRef) -> None:
        self.weight, self.pairs = weight, [(rows, others) for _, rows, others in read_before(model, start)]

    def __call__(self, model: Any, batch: Any) -> Tensor:
        return self.weight * torch.stack([(rows @ others.T).square().sum() for rows, others in self.pairs]).sum()
