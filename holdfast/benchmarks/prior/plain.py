"""The bundled questions for a model that was not taught them: what a cell is, and which answers there are."""

from __future__ import annotations

from PIL import Image

from holdfast.benchmarks.question import PriorQuestion
from holdfast.data.world import COLORS, SHAPES
from holdfast.errors import UserError

ANSWERS = {
    "color": tuple(COLORS),
    "shape": SHAPES,
    "count": ("1", "2", "3", "4"),
    "presence": ("yes", "no"),
    "comparison": ("yes", "no"),
    "pieces": ("sky", "ground"),
    "digits": tuple(str(digit) for digit in range(10)),
}
BOX = "Give its box as x1 y1 x2 y2, in sixteenths of the image's width and height."
CELLS = "The picture is divided into four cells: 1 is top left, 2 top right, 3 bottom left, 4 bottom right. "
"""Before questions that name a cell."""
SIDE = 448
"""Of a picture in pixels: whole patches of Qwen's and InternVL's towers. Of a scene's 64 they see four tokens."""


def answers(benchmark: str) -> tuple[str, ...]:
    """All answers that its questions can have; none for a box. UserError for a benchmark without a plain form."""
    if benchmark != "grounding" and benchmark not in ANSWERS:
        raise UserError(f"prior: {benchmark!r} has no plain dialect; leave dialect out.")
    return ANSWERS.get(benchmark, ())


def prompt(benchmark: str, question: PriorQuestion) -> str:
    """The question with all that it takes for granted."""
    words = answers(benchmark)
    about = CELLS.replace("cells", "pieces") if benchmark == "pieces" else CELLS
    where = about if any(word in question.prompt for word in ("cell", "piece")) else ""
    form = f"Answer with one of these alone: {', '.join(words)}." if words else BOX
    return f"{where}{question.prompt} {form}"


def image(question: PriorQuestion) -> Image.Image:
    """Its picture, enlarged. Boxes are shares of its sides and stay what they are."""
    return question.image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
