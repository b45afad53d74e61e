"""Whether vLLM's share of the card, which it takes whatever the model, holds the model's weights."""

from __future__ import annotations

from holdfast.config.methods import AnyStage
from holdfast.config.study import Study
from holdfast.errors import UserError
from holdfast.models.precision import HALF as HALVES
from holdfast.models.shape import Shape
from holdfast.stages import needs
from holdfast.stages.fit import vllm_of
from holdfast.stages.needs import gb
from holdfast.training.arguments import anywhere


def require_share(arm: str, stage: AnyStage, study: Study, shape: Shape, card: int) -> None:
    """Of a GPU of so many bytes.

    Raises:
        UserError: vLLM's share of it for rollouts is less than the model's weights.
    """
    config = anywhere(stage, study.evaluation.max_new_tokens)
    if share := vllm_of(config, card).get("vllm", 0):
        _require_weights(f"{arm}.trainer.vllm_gpu_memory_utilization", share, _weights(study, shape))


def require_evaluation_share(study: Study, shape: Shape, card: int) -> None:
    """The same of evaluations, which also have the model beside vLLM, and the base for an exact drift.

    Raises:
        UserError: the share is less than the model's weights, or what is left of the card less than those beside it.
    """
    if study.evaluation.vllm is None or not card:
        return
    weights = _weights(study, shape)
    share = int(study.evaluation.vllm.gpu_memory_utilization * card)
    field = "evaluation.vllm.gpu_memory_utilization"
    _require_weights(field, share, weights)
    exact = study.evaluation.drift == "exact"
    beside = weights * (2 if exact else 1)
    if share + beside > card:
        base = " and the base" if exact else ""
        less = ", or set evaluation.drift: sampled" if exact else ""
        raise UserError(
            f"{field}: vLLM's share ({gb(share)}) and the model{base} beside it ({gb(beside)}) are more "
            f"than this card's {gb(card)}; lower it{less}, or remove evaluation.vllm"
        )


def _weights(study: Study, shape: Shape) -> int:
    size = needs.HALF if study.model.dtype in HALVES else needs.FLOAT32
    return (shape.parameters - shape.adapter) * size


def _require_weights(field: str, share: int, weights: int) -> None:
    if share < weights:
        raise UserError(
            f"{field}: vLLM's share of this card is {gb(share)}, and the model's weights alone take "
            f"{gb(weights)}; raise it"
        )
