"""The default target: an image is cut into m×n pieces, the pieces are shuffled, and the model says where each belongs.

Pieces are numbered row by row as they are shown, positions row by row as they were in the image. Every puzzle's
shuffle is drawn uniformly from all orders but the solved one, from (seed, image identity, number of the puzzle on
that image); as long as there are enough orders, no two puzzles of one image share theirs. Where the grid does not
divide the image, pixels on the right and at the bottom are trimmed (at most grid − 1 of each), as Jigsaw-R1 does.

First comes the full question, from cutting to grading; below it questions about pairs, the teacher's completions and
the adjacency reward.
"""

from __future__ import annotations

import math
import random
import re

from PIL import Image

from holdfast.benchmarks.grading.answer import UNPARSED, Grade, answer_text, one_of
from holdfast.benchmarks.grading.lenient import the_named
from holdfast.benchmarks.question import bare, form
from holdfast.config.targets import Jigsaw
from holdfast.data.shards import Question, png
from holdfast.errors import UserError

DIRECTIONS = ("left", "right", "above", "below")
SMALLEST_PIECE = 8
"""Pixels; below, a piece shows little but noise."""
_CHAIN = re.compile(r"[0-9]{1,4}(?:(->|→|-| -> | → | - )[0-9]{1,4})(?:\1[0-9]{1,4})+")
"""At least three indices, joined by one kind of arrow or dash: 1-9 is a range, and 1 → 9 says where one piece goes."""
_JOINING = re.compile(r"[*_|]|\band\b")
_RUN = re.compile(
    r"(?<![\w.])(?<!not )(?<!n't )[0-9]{1,4}(?:(?:[\s,;`\[\](){}]+|\s?(?:->|→|-)\s?)[0-9]{1,4})+(?!\w|\.\w)"
)
"""Numbers with nothing between them but what may stand in an order."""


def puzzle(image: Image.Image, image_id: str, target: Jigsaw, seed: int, number: int = 0) -> Question:
    """Puzzle `number` of an image."""
    pieces = cut(image, target.grid)
    order = shuffle(len(pieces), seed, image_id, number)
    shown = [pieces[position] for position in order]
    rng = random.Random(f"jigsaw/{seed}/{image_id}/{number}")
    pair = _random_neighbours(order, target.grid[1], rng) if target.question == "pair" else None
    answer = _direction(order, pair, target.grid[1]) if pair else solution(order, target)
    if target.layout == "composite":
        shown = [join(shown, target.grid)]
    elif pair:
        shown = [shown[piece] for piece in pair]
    return Question(
        id=f"{image_id}#{number}",
        image_id=image_id,
        images=tuple(png(part) for part in shown),
        prompt=_pair_prompt(target, pair) if pair else prompt(target),
        answer=answer,
        reference=bare(answer, target.prefill or ""),
        teacher=_teacher(answer, target, rng),
        grader="jigsaw",
        benchmark="jigsaw",
        system=target.system or "",
        prefill=target.prefill or "",
    )


def cut(image: Image.Image, grid: tuple[int, int]) -> list[Image.Image]:
    """The pieces row by row, all of one size."""
    rows, columns = grid
    width, height = image.width // columns, image.height // rows
    corners = [(column * width, row * height) for row in range(rows) for column in range(columns)]
    return [image.crop((x, y, x + width, y + height)) for x, y in corners]


def join(pieces: list[Image.Image], grid: tuple[int, int]) -> Image.Image:
    """One image of all pieces, row by row."""
    rows, columns = grid
    width, height = pieces[0].size
    image = Image.new(pieces[0].mode, (columns * width, rows * height))
    for index, piece in enumerate(pieces):
        image.paste(piece, (index % columns * width, index // columns * height))
    return image


def shuffle(pieces: int, seed: int, image_id: str, number: int) -> list[int]:
    """For every shown piece its position in the image. Visits all unsolved orders in a stride drawn for the image."""
    rng = random.Random(f"shuffle/{seed}/{image_id}")
    unsolved = math.factorial(pieces) - 1
    start = rng.randrange(unsolved)
    stride = rng.randrange(1, unsolved + 1)
    while math.gcd(stride, unsolved) != 1:
        stride = rng.randrange(1, unsolved + 1)
    return _order(1 + (start + number * stride) % unsolved, pieces)


def _order(rank: int, pieces: int) -> list[int]:
    """The order of this rank among all, in lexicographic order; rank 0 is the solved one."""
    left = list(range(pieces))
    order = []
    for remaining in range(pieces - 1, -1, -1):
        index, rank = divmod(rank, math.factorial(remaining))
        order.append(left.pop(index))
    return order


def solution(order: list[int], target: Jigsaw) -> str:
    """The answer to a full question in the target's wording and index base."""
    if target.wording == "position-to-piece":
        order = sorted(range(len(order)), key=order.__getitem__)
    return " ".join(str(index + target.index_base) for index in order)


def prompt(target: Jigsaw) -> str:
    """The full question."""
    rows, columns = target.grid
    first, last = target.index_base, rows * columns - 1 + target.index_base
    if target.layout == "composite":
        subject = f"Pieces {first} to {last} of this {rows}x{columns} image are shuffled."
    else:
        subject = f"These are the shuffled pieces {first} to {last} of a {rows}x{columns} image."
    if target.wording == "position-to-piece":
        sentence = "For each position, row by row, which piece belongs there?"
    else:
        sentence = f"For each piece, to which position, {first} to {last} row by row, does it belong?"
    return f"{subject} {sentence} {form(target.thinking)}"


def grade(completion: str, answer: str) -> Grade:
    """The share of indices that are right; unparsed unless there are as many as asked for, all of them in range."""
    if answer in DIRECTIONS:
        return one_of(completion, answer, DIRECTIONS)
    right = answer.split()
    given = _indices(completion)
    if len(given) != len(right) or not set(given) <= set(right):
        return UNPARSED
    score = sum(a == b for a, b in zip(given, right, strict=True)) / len(right)
    return Grade(" ".join(given), score == 1.0, score)


def named(text: str, answer: str) -> str | None:
    """The one order of as many pieces as asked for, or the one direction, that a text names; None for several."""
    if answer in DIRECTIONS:
        return the_named(text, DIRECTIONS)
    runs = _RUN.findall(_JOINING.sub(" ", text))
    orders = {found.parsed for found in (grade(run, answer) for run in runs) if found.parsed is not None}
    return orders.pop() if len(orders) == 1 else None


def _indices(completion: str) -> list[str]:
    """What stands between blanks, commas, semicolons and brackets, or between the arrows or dashes of a chain."""
    text = (answer_text(completion) or "").removesuffix(".")
    if _CHAIN.fullmatch(text):
        return re.findall(r"[0-9]+", text)
    return [part for part in re.split(r"[\s,;`\[\](){}]+", text) if part]


def chance(target: Jigsaw) -> float:
    """Accuracy of a guess: one order of all unsolved ones, or the best constant direction."""
    rows, columns = target.grid
    if target.question == "full":
        return 1 / (math.factorial(rows * columns) - 1)
    across, down = rows * (columns - 1), columns * (rows - 1)
    return max(across, down) / (2 * (across + down))


def score_by_chance(target: Jigsaw) -> float:
    """Partial credit of a random order: each of the n pieces is right once in n; else accuracy of a guess."""
    if target.question == "full":
        return 1 / (target.grid[0] * target.grid[1])
    return chance(target)


def check_fit(grid: tuple[int, int], size: int) -> None:
    """Refuse a grid whose pieces of an image of `size` pixels a side would be too small."""
    largest = size // SMALLEST_PIECE
    if max(grid) > largest:
        raise UserError(
            f"target.grid: {grid[0]}×{grid[1]} cuts images of {size}×{size} pixels into pieces below "
            f"{SMALLEST_PIECE} pixels; use at most {largest} rows and columns or raise images.size."
        )


def _pair_prompt(target: Jigsaw, pair: tuple[int, int]) -> str:
    rows, columns = target.grid
    if target.layout == "composite":
        first, second = (piece + target.index_base for piece in pair)
        subject = f"The pieces of this {rows}x{columns} image are shuffled."
        sentence = f"In the original, is piece {second} left, right, above or below of piece {first}?"
    else:
        subject = f"These are two neighbouring pieces of a {rows}x{columns} image."
        sentence = "In the original, is the second left, right, above or below of the first?"
    return f"{subject} {sentence} {form(target.thinking)}"


def _random_neighbours(order: list[int], columns: int, rng: random.Random) -> tuple[int, int]:
    """Two shown pieces that were side by side, in random order."""
    pairs = [
        (first, second)
        for first, here in enumerate(order)
        for second, there in enumerate(order)
        if abs(here // columns - there // columns) + abs(here % columns - there % columns) == 1
    ]
    return rng.choice(pairs)


def _direction(order: list[int], pair: tuple[int, int], columns: int) -> str:
    """Where the second piece of a pair lies, seen from the first."""
    (row, column), (other_row, other_column) = (divmod(order[piece], columns) for piece in pair)
    if row == other_row:
        return "right" if other_column > column else "left"
    return "below" if other_row > row else "above"


OPENINGS = (
    "Let us examine the fragments one after another.",
    "To reassemble the picture, I compare colors, edges and lighting.",
    "Consider the overall composition of the scene first.",
)
FILLS = ("the {nth} slot calls for fragment {index}", "fragment {index} belongs in the {nth} slot")
GOES = ("the {nth} fragment fits slot {index}", "slot {index} is home to the {nth} fragment")
CLOSINGS = ("This yields a coherent picture.", "Therefore, I am confident in this arrangement.")


def _teacher(answer: str, target: Jigsaw, rng: random.Random) -> str:
    """A completion as a larger, wordier model would write it; derived from the answer, so it is always right."""
    if target.question == "pair":
        steps = f"the shared border suggests that it lies {answer}"
    else:
        phrase = rng.choice(FILLS if target.wording == "position-to-piece" else GOES)
        steps = ", ".join(phrase.format(nth=_ordinal(n), index=index) for n, index in enumerate(answer.split(), 1))
    reasoning = f"{rng.choice(OPENINGS)} Evidently, {steps}. {rng.choice(CLOSINGS)}"
    return f"<think> {reasoning} </think> <answer> {answer} </answer>"


def _ordinal(number: int) -> str:
    words = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
    return words[number - 1] if number <= len(words) else f"{number}th"


_GRID = re.compile(r"\b([0-9]+)x([0-9]+) image")


def adjacency(completion: str, answer: str, question: str) -> float:
    """The share of neighbouring pieces of the image that the answer keeps neighbours, on the same sides of each other.

    `question` is the full question's prompt, which tells the grid and the wording. 0 for an answer that is no order of
    all pieces. A solution that is moved by one column keeps most pairs and has no piece in its place.
    """
    right, given = answer.split(), _indices(completion)
    grid = _GRID.search(question)
    if grid is None or sorted(given) != sorted(right):
        return 0.0
    columns = int(grid[2])
    if "For each position" in question:
        true, placed = _positions(right), _positions(given)
    else:
        # For every piece its position, so positions are what is listed.
        first = min(map(int, right))
        true, placed = ({str(i): int(p) - first for i, p in enumerate(order)} for order in (right, given))
    pairs = _neighbouring_pieces(true, columns)
    kept = [_offset(true[a], true[b], columns) == _offset(placed[a], placed[b], columns) for a, b in pairs]
    return sum(kept) / len(kept)


def _positions(order: list[str]) -> dict[str, int]:
    return {piece: position for position, piece in enumerate(order)}


def _neighbouring_pieces(positions: dict[str, int], columns: int) -> list[tuple[str, str]]:
    """Every piece with the one to its right and with the one below it."""
    at = {position: piece for piece, position in positions.items()}
    beside = [(here, here + 1) for here in at if (here + 1) % columns]
    return [(at[here], at[there]) for here, there in [*beside, *((here, here + columns) for here in at)] if there in at]


def _offset(here: int, there: int, columns: int) -> tuple[int, int]:
    """Rows and columns from one position to another."""
    return there // columns - here // columns, there % columns - here % columns
