"""How a model sees a study's questions, told before time is spent: a dialect that it was not taught, images that are
shrunk for it."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

from PIL import Image

from holdfast.benchmarks.public.boxes import fitted_size
from holdfast.config.prior import Prior
from holdfast.config.refs import ModelRef
from holdfast.config.study import Study
from holdfast.data.chat import reads_images
from holdfast.data.shards import Question
from holdfast.data.splits import listed
from holdfast.errors import brief
from holdfast.models.load import bounds_pixels, load_processor
from holdfast.models.tiny.shipped import DIRECTORY

Size = tuple[int, int]


class Shrunk(NamedTuple):
    """Images of a shard that a processor makes smaller."""

    number: int
    of: int
    largest: Size
    """Width and height in pixels."""


def foreign_dialect(study: Study, processor: Any) -> list[str]:
    """A warning where bundled questions are asked as the bundled base was taught, and the model has another vocabulary.

    It may have been trained on these questions nevertheless, so nothing is refused.
    """
    asked = [prior.name for prior in study.prior if isinstance(prior, Prior) and prior.dialect is None]
    if not asked or study.model.path == "bundled" or _vocabulary(processor) == _bundled_vocabulary():
        return []
    return [
        f"prior: asked as the bundled base was taught, about pictures of 64 pixels a side: {listed(asked)}. "
        f"{brief(study.model.path)} can answer that only if it was trained on it; if not, write "
        f"{{benchmark: {asked[0]}, dialect: plain}}, and so for each."
    ]


def _vocabulary(processor: Any) -> dict[str, int]:
    return processor.tokenizer.get_vocab()


def _bundled_vocabulary() -> dict[str, int]:
    return _vocabulary(load_processor(ModelRef(path=str(DIRECTORY), digest="")))


def shrunk_images(study: Study, processor: Any, shards: dict[str, list[Question]]) -> list[str]:
    """A warning on the images of more pixels than the processor takes; of other processors than Qwen's, none."""
    if not reads_images(processor) or not bounds_pixels(processor):
        return []
    most = processor.image_processor.size["longest_edge"]
    found = {name: _shrunk(questions, most) for name, questions in shards.items()}
    shown = [f"{one.number} of {one.of} in {name}" for name, one in found.items() if one.number]
    if not shown:
        return []
    number = sum(one.number for one in found.values())
    largest = max((one.largest for one in found.values()), key=_pixels)
    bound = (
        "model.max_pixels" if study.model.max_pixels is not None else "its own bound, unless model.max_pixels says more"
    )
    return [
        f"the processor shrinks {number} images to at most {most:,} pixels ({bound}): {listed(shown)}. The largest, of "
        f"{_written(largest)} pixels, is seen at {_written(_seen(largest, processor))}."
    ]


def _shrunk(questions: list[Question], most: int) -> Shrunk:
    """No image is decoded for that."""
    sizes = [Image.open(io.BytesIO(image)).size for question in questions for image in question.images]
    larger = [size for size in sizes if _pixels(size) > most]
    return Shrunk(len(larger), len(sizes), max(larger, key=_pixels, default=(0, 0)))


def _seen(size: Size, processor: Any) -> Size:
    images = processor.image_processor
    bounds = images.size
    return fitted_size(size, bounds["longest_edge"], images.patch_size * images.merge_size, bounds["shortest_edge"])


def _pixels(size: Size) -> int:
    return size[0] * size[1]


def _written(size: Size) -> str:
    return f"{size[0]}×{size[1]}"
