"""How model families write boxes, between shares of an image's sides and the coordinates that a family was taught.

Qwen2.5-VL counts pixels of the image as its processor resizes it. So its images are resized here, to what the
processor then leaves alone; Qwen2-VL, Qwen3-VL and InternVL count thousandths of the sides.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from PIL import Image

from holdfast.benchmarks.question import Box

LEAST_PIXELS = 56 * 56
"""Qwen's processors enlarge what is smaller."""


class Family(NamedTuple):
    """How a model family writes a box."""

    unit: Literal["share", "thousandth", "pixel"]
    factor: int = 0
    """Sides of images are multiples of it; 0 for any."""
    form: Literal["json", "list", "marks"] = "json"
    """Written as {"bbox_2d": [...]}, as the list alone, or as <ref>what</ref><box>[[...]]</box>."""

    def fitted(self, image: Image.Image, pixels: int) -> Image.Image:
        """An image as the model will see it, of at most so many pixels."""
        size = fitted_size(image.size, pixels, self.factor)
        return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)

    def written(self, box: Box, size: tuple[int, int]) -> list[float]:
        """A box in shares as the model's coordinates, in an image of this size."""
        across, down = self._scale(size)
        if self.unit == "share":
            return [round(side, 4) for side in box]
        return [round(side * scale) for side, scale in zip(box, (across, down, across, down), strict=True)]

    def shares(self, box: Box, size: tuple[int, int]) -> Box:
        """The model's coordinates as a box in shares."""
        across, down = self._scale(size)
        return box[0] / across, box[1] / down, box[2] / across, box[3] / down

    def _scale(self, size: tuple[int, int]) -> tuple[int, int]:
        return {"share": (1, 1), "thousandth": (1000, 1000), "pixel": size}[self.unit]


FAMILIES = {
    "unit": Family("share", form="list"),
    "qwen2-vl": Family("thousandth"),
    "qwen2.5-vl": Family("pixel", 28),
    "qwen3-vl": Family("thousandth"),
    "internvl": Family("thousandth", form="marks"),
}
MODEL_TYPES = {
    "qwen2_vl": "qwen2-vl",
    "qwen2_5_vl": "qwen2.5-vl",
    "qwen3_vl": "qwen3-vl",
    "internvl": "internvl",
}
"""Families by the model_type of a config.json."""


def fitted_size(size: tuple[int, int], pixels: int, factor: int, least: int = LEAST_PIXELS) -> tuple[int, int]:
    """Width and height of at most so many pixels, in like proportion; in multiples of `factor`, as Qwen rounds them.

    With a factor, an image of fewer than `least` pixels is enlarged.
    """
    width, height = size
    if not factor:
        shrink = min(1.0, math.sqrt(pixels / (width * height)))
        return (max(1, int(width * shrink)), max(1, int(height * shrink))) if shrink < 1 else size
    whole = [max(factor, round(side / factor) * factor) for side in (height, width)]
    if whole[0] * whole[1] > pixels:
        shrink = math.sqrt(height * width / pixels)
        whole = [max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width)]
    elif whole[0] * whole[1] < least:
        grow = math.sqrt(least / (height * width))
        whole = [math.ceil(side * grow / factor) * factor for side in (height, width)]
    return whole[1], whole[0]
