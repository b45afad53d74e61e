"""A stage's model as it was at each kept checkpoint, ready for gradients, and what lies between two of them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from holdfast.config.jobs import Train
from holdfast.config.measurement import Influence
from holdfast.config.refs import FileRef, ModelRef, directory_digest, known_digest
from holdfast.errors import UserError
from holdfast.influence.engine.gradients import Gradient, selection
from holdfast.influence.parts import choose
from holdfast.models.load import device, load_model
from holdfast.models.lora import learning

CPU = torch.device("cpu")
EPSILON = 1e-8
"""Adam's, where a stage's trainer does not name its own as `adam_epsilon`."""


class Loaded(NamedTuple):
    """A stage's model at a checkpoint."""

    model: Any
    weights: Gradient
    """Those that are measured in, in float32: what lies between two checkpoints is smaller than bfloat16's rounding."""


def load(train: Train, kept: ModelRef | None, settings: Influence) -> Loaded:
    """The model at a checkpoint, or at the stage's beginning, in the host's memory; what is measured of what the stage
    trained requires gradients.

    Raises:
        UserError: the checkpoint's files are not those that were recorded, or the settings name no such layers.
    """
    if kept is not None:
        require_recorded(kept)
    whole = kept is None or train.stage.lora is not None
    loaded = load_model(train.start if whole else kept or train.start)
    model = learning(loaded, train.stage, train.seed, kept)
    choose(model, settings.layers)
    return Loaded(model, weights(model))


def computing(loaded: Loaded, train: Train, settings: Influence) -> Loaded:
    """The same with its model where, and in what, passes compute."""
    dtype = torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32
    return loaded._replace(model=loaded.model.to(device(train.device), dtype))


def require_recorded(ref: ModelRef) -> None:
    """Refuse a checkpoint that has changed since it was recorded."""
    path = Path(ref.path)
    if not path.is_dir() or directory_digest(path) != ref.digest:
        raise UserError(
            f"{ref.path}: the checkpoint of step {ref.step} is not the one that was recorded ({ref.digest[:12]}…); "
            "restore its files or train the stage again"
        )


def weights(model: Any) -> Gradient:
    """The parameters that learn as they are now; what moves or converts the model later leaves these."""
    return {name: value.detach() for name, value in selection(model).items()}


def displacement(after: Gradient, before: Gradient) -> Gradient:
    """How far each parameter moved."""
    return {name: value - before[name] for name, value in after.items()}


def preconditioner(moments: FileRef, epsilon: float = EPSILON, names: Collection[str] | None = None) -> Gradient:
    """D = √v̂ + ε by parameter, from the optimizer's second moments after the step that led to the checkpoint.

    With `names`, of these parameters only. v̂ is the file's: its bias was taken out as it was written. ε stands outside
    the root, as in torch's Adam.

    Raises:
        UserError: the file is not the one that was recorded.
    """
    if not moments.path.is_file() or known_digest(moments.path) != moments.digest:
        raise UserError(f"{moments.path}: the second moments are not those that were recorded; train the stage again")
    with safe_open(moments.path, "pt") as opened:
        wanted = [name for name in opened.keys() if names is None or name in names]  # noqa: SIM118 - it is no mapping
        return {name: opened.get_tensor(name).float().sqrt() + epsilon for name in wanted}


def preconditioned(gradient: Gradient, scale: Gradient) -> Gradient:
    """D⁻¹V: the dot of a sample's gradient with it is the effect of an Adam step of that sample, momentum apart.

    A parameter without second moments never had a gradient, so the optimizer does not move it: 0.
    """
    return {
        name: value / scale[name].to(value) if name in scale else torch.zeros_like(value)
        for name, value in gradient.items()
    }


def inner(left: Gradient, right: Gradient) -> float:
    """⟨left, right⟩ over all parameters, summed in float64."""
    return float(sum(torch.sum(value.double() * right[name].double()) for name, value in left.items()))
