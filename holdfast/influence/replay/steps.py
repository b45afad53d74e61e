"""What an optimizer does in a step, as factors that are linear in the gradients once its second moments are known.

With m_t = β m_{t−1} + gain · g_t and D_t = √v̂_t + ε (1 without second moments), a step moves a parameter by
−rate · m_t / D_t − shrink · θ_{t−1}. AdamW: gain = 1 − β₁ and rate = lr / (1 − β₁^t); SGD: gain = 1 and rate = lr.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from holdfast.errors import UserError
from holdfast.influence.engine.gradients import Gradient, selection

Parts = dict[str, Gradient]
"""Of a step: `weights` after it, and where the optimizer has them, `first` and `second` moments."""


class ParameterStep(NamedTuple):
    """One parameter in one step."""

    rate: float
    shrink: float
    momentum: float
    gain: float
    bias: float | None
    """1 − β₂^t, by which second moments are divided; None without them."""
    epsilon: float

    def scale(self, second: Tensor | None) -> Tensor | float:
        """D_t of second moments v_t."""
        return 1.0 if second is None or self.bias is None else (second / self.bias).sqrt_().add_(self.epsilon)


class StepFacts(NamedTuple):
    """One step: how each parameter that it moved was moved, and the factor of gradient clipping."""

    parameters: dict[str, ParameterStep]
    clip: float


class Taught(NamedTuple):
    """One sample of a step."""

    row: int
    """Of a supervised stage, the number of its training row; of a reinforced one, that of the rollout."""
    question: str
    """Its id."""
    completion: list[int]
    weights: Tensor
    """−∂loss / ∂ log π(token) (tokens,), without the KL penalty."""
    penalty: Tensor | None
    """The penalty's (tokens,)."""
    advantage: float
    """1 for a supervised sample."""


def parameter_steps(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, ParameterStep]:
    """Of a step just taken, for every parameter that it moved.

    Raises:
        UserError: the optimizer is another than AdamW or SGD, or has an option that no rule covers.
    """
    require_linear(optimizer)
    names = {id(value): name for name, value in model.named_parameters()}
    return {
        names[id(value)]: _parameter_step(group, optimizer.state.get(value, {}), isinstance(optimizer, torch.optim.SGD))
        for group in optimizer.param_groups
        for value in group["params"]
        if value.grad is not None
    }


def _parameter_step(group: dict[str, Any], state: dict[str, Any], plain: bool) -> ParameterStep:
    rate = float(group["lr"])
    shrink = rate * float(group["weight_decay"])
    if plain:
        return ParameterStep(rate, shrink, float(group["momentum"]), 1.0, None, 0.0)
    first, second = (float(beta) for beta in group["betas"])
    count = float(state["step"])
    return ParameterStep(rate / (1 - first**count), shrink, first, 1 - first, 1 - second**count, float(group["eps"]))


def require_linear(optimizer: torch.optim.Optimizer) -> None:
    """Refuse what is not linear in its gradients, or is so in another way.

    Raises:
        UserError: it names the optimizer.
    """
    groups = optimizer.param_groups
    if isinstance(optimizer, torch.optim.AdamW):
        odd = [name for name in ("amsgrad", "maximize") if any(group[name] for group in groups)]
    elif isinstance(optimizer, torch.optim.SGD):
        odd = [name for name in ("nesterov", "maximize", "dampening") if any(group[name] for group in groups)]
        if any(group["momentum"] and group["weight_decay"] for group in groups):
            odd.append("weight_decay together with momentum")
    else:
        odd = ["it"]
    if odd:
        raise UserError(
            f"influence.ledger: of the optimizer {type(optimizer).__name__} no rule covers {odd[0]}; its steps can be "
            "attributed with AdamW or SGD (trainer.optim: adamw_torch or sgd), or leave out influence.ledger"
        )


def clip_factor(norm: float, limit: float) -> float:
    """What torch's clip_grad_norm_ multiplies gradients of that norm with."""
    return min(1.0, limit / (norm + 1e-6))


class StepStore:
    """What a training did in every step, in files of a directory; step 0 is the beginning.

    Of several processes, the first keeps weights, and the others their samples in directories below.
    """

    def __init__(self, place: Path) -> None:
        self.place = place

    def of_rank(self, number: int) -> StepStore:
        """The part that one of several processes writes."""
        return StepStore(self.place / f"rank-{number}") if number else self

    def keep(
        self,
        step: int,
        model: Any,
        optimizer: torch.optim.Optimizer | None = None,
        facts: StepFacts | None = None,
        taught: Sequence[Taught] = (),
    ) -> None:
        """Write weights and moments as they are now, and what moved them; of the beginning, the weights alone, and
        without a model the samples."""
        learning = {} if model is None else selection(model)
        states = {name: optimizer.state.get(value, {}) if optimizer else {} for name, value in learning.items()}
        kinds: dict[str, Gradient] = {
            "weights": learning,
            "first": {name: state.get("exp_avg", state.get("momentum_buffer")) for name, state in states.items()},
            "second": {name: state.get("exp_avg_sq") for name, state in states.items()},
        }
        there = {kind: {name: part for name, part in of.items() if part is not None} for kind, of in kinds.items()}
        # Many small tensors take longer to write and to read than one.
        parts = {
            kind: torch.cat([part.detach().flatten().cpu() for part in of.values()]) for kind, of in there.items() if of
        }
        shapes = {kind: {name: list(part.shape) for name, part in of.items()} for kind, of in there.items()}
        plain = [one._replace(weights=None, penalty=None) for one in taught]  # type: ignore[arg-type]
        for place, one in enumerate(taught):
            parts[f"slopes/{place}"] = one.weights.contiguous()
            if one.penalty is not None:
                parts[f"penalty/{place}"] = one.penalty.contiguous()
        self.place.mkdir(parents=True, exist_ok=True)
        said = {"facts": facts, "taught": plain, "shapes": shapes}
        save_file(parts, self._path(step), {name: json.dumps(value) for name, value in said.items()})

    def has(self, steps: int) -> bool:
        """Whether the first so many steps are there."""
        return all(self._path(step).is_file() for step in range(1, steps + 1))

    def read(self, step: int, kind: str, where: torch.device | None = None) -> Gradient:
        """`weights`, `first` or `second` moments, by parameter; those that are not there are left out."""
        with safe_open(self._path(step), "pt") as opened:
            shapes = json.loads(opened.metadata()["shapes"])[kind]
            if not shapes:
                return {}
            whole = opened.get_tensor(kind).to(where or "cpu")
        parts = whole.split([math.prod(shape) for shape in shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

    def facts(self, step: int) -> StepFacts:
        """How a step from 1 moved the weights."""
        with safe_open(self._path(step), "pt") as opened:
            parameters, clip = json.loads(opened.metadata()["facts"])
        return StepFacts({name: ParameterStep(*values) for name, values in parameters.items()}, clip)

    def taught(self, step: int) -> list[Taught]:
        """The samples of a step from 1, of all processes."""
        ranks = len(list(self.place.glob("rank-*")))
        return [one for number in range(1 + ranks) for one in self.of_rank(number)._own_taught(step)]

    def _own_taught(self, step: int) -> list[Taught]:
        with safe_open(self._path(step), "pt") as opened:
            found = [Taught(*values) for values in json.loads(opened.metadata()["taught"])]
            there = set(opened.keys())

            def part(name: str) -> Tensor | None:
                return opened.get_tensor(name) if name in there else None

            return [
                one._replace(weights=opened.get_tensor(f"slopes/{place}"), penalty=part(f"penalty/{place}"))
                for place, one in enumerate(found)
            ]

    def _path(self, step: int) -> Path:
        return self.place / f"step-{step:06d}.safetensors"
