"""The optimizer's second moments beside a kept checkpoint, so that influence can be preconditioned as Adam does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from holdfast import group
from holdfast.training.sharded import second_moment


def save_moments(model: Any, optimizer: Any, path: Path) -> None:
    """Write v̂, the second moments with their bias taken out, by parameter name; nothing for another optimizer.

    Of several processes the first writes; all must come here.
    """
    betas = optimizer.param_groups[0].get("betas")
    corrected: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        found = second_moment(optimizer, parameter) if betas and parameter.requires_grad else None
        # The host would hold them once for every process.
        if found is not None and group.number() == 0:
            moment, steps = found
            corrected[name] = (moment.float() / (1 - betas[1] ** steps)).cpu().contiguous()
    if corrected:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file(corrected, partial)
        partial.replace(path)
