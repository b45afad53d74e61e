"""Jigsaws of any grid: cutting, shuffling, asking, grading."""

import itertools
import math
import re
from collections import Counter
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from holdfast.benchmarks.grading.answer import formatted
from holdfast.benchmarks.targets import jigsaw
from holdfast.config.targets import Jigsaw
from holdfast.errors import UserError

GRIDS = st.tuples(st.integers(1, 5), st.integers(1, 5)).filter(lambda grid: grid[0] * grid[1] > 1)
WORDINGS = ("position-to-piece", "piece-to-position")
FULL = st.builds(
    Jigsaw,
    grid=GRIDS,
    layout=st.sampled_from(["composite", "pieces"]),
    index_base=st.sampled_from([0, 1]),
    thinking=st.booleans(),
    wording=st.sampled_from(WORDINGS),
)


def noise(seed: int, width: int = 61, height: int = 47) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data)).convert("RGB")


def shown_pieces(question: jigsaw.Question, target: Jigsaw) -> list[Image.Image]:
    images = [opened(data) for data in question.images]
    return images if target.layout == "pieces" else jigsaw.cut(images[0], target.grid)


def positions(answer: str, target: Jigsaw) -> list[int]:
    """For every shown piece its position, whatever the wording."""
    listed = [int(index) - target.index_base for index in answer.split()]
    if target.wording == "piece-to-position":
        return listed
    return [listed.index(piece) for piece in range(len(listed))]


@settings(deadline=None, max_examples=60)
@given(FULL, st.integers(0, 10**6), st.integers(0, 50))
def test_the_answer_puts_the_image_back_pixel_by_pixel(target: Jigsaw, seed: int, number: int) -> None:
    image = noise(seed)
    question = jigsaw.puzzle(image, "an image", target, seed, number)
    pieces = shown_pieces(question, target)
    in_place = {position: piece for piece, position in enumerate(positions(question.answer, target))}
    solved = jigsaw.join([pieces[in_place[position]] for position in range(len(pieces))], target.grid)
    assert solved.tobytes() == image.crop((0, 0, *solved.size)).tobytes()
    assert image.width - solved.width < target.grid[1]
    assert image.height - solved.height < target.grid[0]


@given(FULL, st.integers(0, 10**6), st.integers(0, 50))
def test_no_puzzle_is_solved_already(target: Jigsaw, seed: int, number: int) -> None:
    pieces = target.grid[0] * target.grid[1]
    assert jigsaw.shuffle(pieces, seed, "an image", number) != list(range(pieces))


@given(FULL, st.integers(0, 10**6))
def test_the_two_wordings_are_inverse(target: Jigsaw, seed: int) -> None:
    order = jigsaw.shuffle(target.grid[0] * target.grid[1], seed, "an image", 0)
    one, other = (jigsaw.solution(order, target.model_copy(update={"wording": wording})) for wording in WORDINGS)
    forward = [int(index) - target.index_base for index in one.split()]
    backward = [int(index) - target.index_base for index in other.split()]
    assert [forward[index] for index in backward] == list(range(len(order)))


@settings(deadline=None)
@given(FULL, st.integers(0, 10**6))
def test_reference_and_teacher_are_right_and_well_formed(target: Jigsaw, seed: int) -> None:
    question = jigsaw.puzzle(noise(0), "an image", target, seed)
    for completion in (question.reference, question.teacher):
        assert jigsaw.grade(completion, question.answer) == (question.answer, True, 1.0)
    assert formatted(question.reference, thinking=False)
    assert formatted(question.teacher, thinking=True)


@given(st.permutations(range(1, 7)), st.lists(st.integers(-1, 8), max_size=8), st.sampled_from([" ", ", ", ";", "\n"]))
def test_scores_are_shares_and_only_lists_in_range_are_read(right: list[int], given: list[int], separator: str) -> None:
    answer = " ".join(map(str, right))
    grade = jigsaw.grade(f"<answer>{separator.join(map(str, given))}</answer>", answer)
    if len(given) == 6 and all(1 <= index <= 6 for index in given):
        assert grade.score == sum(a == b for a, b in zip(given, right, strict=True)) / 6
        assert grade.correct == (given == right)
    else:
        assert grade == (None, False, 0.0)


@pytest.mark.parametrize(
    "text",
    [
        *("2 1 4 3", "2,1,4,3", "[[2, 1], [4, 3]]", "2; 1; 4; 3", "2 1\n4 3", "`2 1 4 3`"),
        *("2 1 4 3.", "[2, 1, 4, 3].", "2-1-4-3", "2 – 1 – 4 – 3", "2 → 1 → 4 → 3", "2->1->4->3."),
    ],
)
def test_separators_and_brackets_do_not_matter(text: str) -> None:
    assert jigsaw.grade(f"<answer> {text} </answer>", "2 1 4 3") == ("2 1 4 3", True, 1.0)


@pytest.mark.parametrize(
    "text",
    [
        *("2 1 4", "2 1 4 3 1", "2 1 4 5", "2 1 4 x", "2.0 1 4 3", "-2 1 4 3", "² 1 4 3", ""),
        *("2-1 4-3", "2-1, 4-3", "1-4", "1:2, 2:1, 3:4, 4:3", "1→2, 2→1, 3→4, 4→3", "2 1 4 -3", "2 -1 -4 -3"),
        *("2--1--4--3", "-2-1-4-3", "2-1→4-3", "2.1.4.3", "2 1 4 3..", "2→1→4→3→"),
    ],
)
def test_what_is_no_list_of_indices_is_unparsed(text: str) -> None:
    assert jigsaw.grade(f"<answer>{text}</answer>", "2 1 4 3").parsed is None


def test_shuffles_are_uniform_over_the_unsolved_orders() -> None:
    drawn = Counter(tuple(jigsaw.shuffle(4, 0, f"image {index}", 0)) for index in range(23 * 200))
    assert set(drawn) == set(itertools.permutations(range(4))) - {(0, 1, 2, 3)}
    chi_squared = sum((count - 200) ** 2 / 200 for count in drawn.values())
    assert chi_squared < 48.3  # 0.999 quantile with 22 degrees of freedom


def test_puzzles_of_one_image_differ_until_all_orders_are_used() -> None:
    assert len({tuple(jigsaw.shuffle(4, 7, "an image", number)) for number in range(23)}) == 23
    assert len({tuple(jigsaw.shuffle(9, 7, "an image", number)) for number in range(500)}) == 500


def test_a_puzzle_depends_on_seed_image_and_number() -> None:
    def drawn(seed: int, image_id: str, number: int) -> tuple[int, ...]:
        return tuple(jigsaw.shuffle(9, seed, image_id, number))

    assert len({drawn(0, "a", 0), drawn(1, "a", 0), drawn(0, "b", 0), drawn(0, "a", 1)}) == 4
    assert drawn(0, "a", 0) == drawn(0, "a", 0)


@settings(deadline=None, max_examples=40)
@given(GRIDS, st.integers(0, 10**6), st.sampled_from(["composite", "pieces"]))
def test_the_pair_question_tells_where_the_second_piece_lies(grid: tuple[int, int], seed: int, layout: str) -> None:
    image = noise(seed)
    target = Jigsaw(grid=grid, question="pair", layout=layout)
    question = jigsaw.puzzle(image, "an image", target, seed)
    if layout == "composite":
        assert len(question.images) == 1
        pieces = jigsaw.cut(opened(question.images[0]), grid)
        second, first = (int(number) for number in re.findall(r"piece (\d+)", question.prompt))
        shown = [pieces[first - 1], pieces[second - 1]]
    else:
        shown = [opened(data) for data in question.images]
    original = [piece.tobytes() for piece in jigsaw.cut(image, grid)]
    (row, column), (other_row, other_column) = (divmod(original.index(p.tobytes()), grid[1]) for p in shown)
    step = (other_row - row, other_column - column)
    assert {"left": (0, -1), "right": (0, 1), "above": (-1, 0), "below": (1, 0)}[question.answer] == step
    assert jigsaw.grade(question.teacher, question.answer).correct
    assert not jigsaw.grade("<answer> beside </answer>", question.answer).correct


def test_the_world_of_64_pixels_takes_a_3x3_grid() -> None:
    jigsaw.check_fit((3, 3), 64)
    question = jigsaw.puzzle(noise(0, 64, 64), "an image", Jigsaw(grid=(3, 3)), 0)
    assert opened(question.images[0]).size == (63, 63)


def test_a_grid_with_tiny_pieces_is_refused_with_the_largest_that_fits() -> None:
    with pytest.raises(UserError, match=r"target\.grid: 2×9 .* at most 8 rows and columns"):
        jigsaw.check_fit((2, 9), 64)


def test_chance_is_that_of_a_guess() -> None:
    assert jigsaw.chance(Jigsaw()) == 1 / 23
    assert jigsaw.chance(Jigsaw(grid=(3, 3))) == 1 / (math.factorial(9) - 1)
    assert jigsaw.chance(Jigsaw(question="pair")) == 0.25
    assert jigsaw.chance(Jigsaw(question="pair", grid=(1, 2))) == 0.5


def test_prompts_name_index_base_and_tags() -> None:
    assert "Pieces 0 to 3" in jigsaw.prompt(Jigsaw(index_base=0))
    assert "<think>" in jigsaw.prompt(Jigsaw())
    assert "<think>" not in jigsaw.prompt(Jigsaw(thinking=False))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("1 2 3 4 5 6", 1.0),
        # Every column moved by one: in both rows one pair of two is torn, and all columns hold.
        ("2 3 1 5 6 4", 5 / 7),
        ("4 5 6 1 2 3", 4 / 7),
        ("6 5 4 3 2 1", 0.0),
        ("1 1 1 1 1 1", 0.0),
        ("1 2 3", 0.0),
        ("6 5 4 3 2 9999999999999999999999", 0.0),
    ],
)
def test_adjacency_is_the_share_of_neighbours_that_stay_so(given, expected):
    question = jigsaw.prompt(Jigsaw(grid=(2, 3)))
    assert jigsaw.adjacency(f"<answer> {given} </answer>", "1 2 3 4 5 6", question) == pytest.approx(expected)


@pytest.mark.parametrize("base", [0, 1])
@given(st.permutations(range(6)), st.permutations(range(6)))
def test_adjacency_does_not_depend_on_the_wording(base, order, guess):
    """The same arrangement, told as pieces of positions and as positions of pieces."""
    found = []
    for wording in ("position-to-piece", "piece-to-position"):
        target = Jigsaw(grid=(3, 2), wording=wording, index_base=base)
        right, given = jigsaw.solution(order, target), jigsaw.solution(guess, target)
        found.append(jigsaw.adjacency(f"<answer> {given} </answer>", right, jigsaw.prompt(target)))
    assert found[0] == pytest.approx(found[1])
    assert 0 <= found[0] <= 1
    assert (found[0] == 1) == (order == guess)


@pytest.mark.parametrize("text", ["2 → 1", "2-1", "2->1"])
def test_two_indices_with_an_arrow_may_be_one_move_and_are_no_order(text: str) -> None:
    assert jigsaw.grade(f"<answer>{text}</answer>", "2 1").parsed is None
