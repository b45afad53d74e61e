"""What asking takes: a batch of an evaluation's longest questions, along a training and in a process of its own."""

from __future__ import annotations

from typing import NamedTuple

from holdfast.config.study import Study
from holdfast.errors import UserError
from holdfast.evaluation.generate import VALUES
from holdfast.models.precision import HALF as HALVES
from holdfast.models.shape import Shape
from holdfast.stages import needs
from holdfast.stages.needs import Batch, gb

SCORED_LOGIT = 12
"""Bytes of a logit of a given completion at the peak: of the base in float32, of the model in two copies."""
PIXELS = 3 * 2 * 16**2
"""Values of a patch at most, in float32: three colours of two frames of 16×16 pixels."""


class Asking(NamedTuple):
    """Bytes on a device that evaluates a kept checkpoint."""

    weights: int
    """An adapter's are merged."""
    base: int
    """Beside the checkpoint, for the exact drift."""
    vllm: int
    """Its share of the card."""
    batch: int

    @property
    def fixed(self) -> int:
        """Whatever the batch."""
        return self.weights + self.base + self.vllm

    @property
    def total(self) -> int:
        """With the largest batch."""
        return self.fixed + self.batch


def asking(study: Study, shape: Shape, batch: Batch, card: int) -> Asking:
    """What an evaluation of a checkpoint takes, on a GPU of so many bytes, or on none."""
    settings = study.evaluation
    weights = (shape.parameters - shape.adapter) * size_of(study)
    # Predictors read the base too, and a study that has them measures the exact drift.
    beside = settings.drift == "exact"
    # With fewer rows than samples of a prompt, all of the prompt's are drawn at once.
    batch = batch._replace(generated=max(batch.generated, *settings.pass_at, 1))
    written = settings.vllm is None
    share = 0 if settings.vllm is None else int(settings.vllm.gpu_memory_utilization * card)
    return Asking(weights, weights * beside, share, batch_memory(shape, size_of(study), batch, written))


def measuring(study: Study, shape: Shape, batch: Batch, copied: bool) -> int:
    """Bytes beside what trains while it asks along the way: a batch, and where the model is `copied`, all of it in the
    study's precision."""
    size = size_of(study)
    return copied * shape.parameters * size + batch_memory(shape, size, batch)


def size_of(study: Study) -> int:
    """Bytes of a number of what is asked."""
    return needs.HALF if study.model.dtype in HALVES else needs.FLOAT32


def batch_memory(shape: Shape, size: int, batch: Batch, written: bool = True) -> int:
    """Bytes of a batch's images, and of what takes most after these: the tower; prompts with the logits of what is
    given; one completion of full length whose logits are more than are held at a time; or, if it is `written`, keys,
    values and prompts of all rows.
    """
    rows, completion = batch.generated, batch.completion * shape.vocabulary
    pixels = rows * batch.patches * PIXELS * needs.FLOAT32
    # Images are put together once more for the tower.
    tower = pixels + rows * batch.patches * size * (4 * shape.vision_hidden + 2 * shape.vision_intermediate)
    token = needs.read_token(shape, size)
    scored = min(rows * batch.completion, VALUES // shape.vocabulary)
    given = (rows * batch.prompt + scored) * token + scored * shape.vocabulary * SCORED_LOGIT
    alone = (batch.prompt + batch.completion) * token + completion * SCORED_LOGIT
    return pixels + max(tower, given, alone, written * rows * needs.generated_row(shape, size, batch))


def require_asking(study: Study, found: Asking, there: int) -> list[str]:
    """Refuse an evaluation that cannot fit whatever the batch, and tell of one that probably does not.

    Raises:
        UserError: the models that it holds take more than there is.
    """
    exact = study.evaluation.drift == "exact"
    if found.fixed > there and exact:
        less = " and leave out predictors" if study.predictors is not None else ""
        raise UserError(
            f"evaluation: a checkpoint and the base beside it take {gb(found.fixed)} and this machine has {gb(there)}; "
            f"set evaluation.drift: sampled{less} or take a smaller model"
        )
    if found.fixed > there:
        raise UserError(
            f"evaluation: a checkpoint takes {gb(found.fixed)} and this machine has {gb(there)}; take a smaller model"
        )
    if found.total <= there:
        return []
    sampled = ", or set evaluation.drift: sampled" if exact and study.predictors is None else ""
    return [
        f"evaluation: a batch of the longest questions may take {gb(found.total)} and this machine has {gb(there)}; if "
        f"it fails, lower evaluation.batch_size or model.max_pixels{sampled}"
    ]
