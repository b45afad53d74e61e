"""The optimizer's second moments beside a kept checkpoint, so that influence can be preconditioned as Adam does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from holdfast import group
from holdfast.training.sharded import whole


def save_moments(model: Any, optimizer: Any, path: Path) -> None:
    """Write v̂, the second moments with their bias taken out, by parameter name; nothing for another optimizer.

    Of several processes the first writes; all must come here.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    corrected: dict[str, torch.Tensor] = {}
    for settings in optimizer.param_groups:
        for parameter in settings["params"]:
            state = optimizer.state.get(parameter, {})
            if "exp_avg_sq" in state and "betas" in settings:
                bias = 1 - settings["betas"][1] ** float(state["step"])
                moments = whole(state["exp_avg_sq"])
                # The host would hold them once for every process.
                if group.number() == 0:
                    corrected[names[id(parameter)]] = (moments.float() / bias).cpu().contiguous()
    if corrected:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file(corrected, partial)
        partial.replace(path)
