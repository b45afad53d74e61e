import io
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from holdfast.benchmarks.question import Draw
from holdfast.benchmarks.targets import detection
from holdfast.benchmarks.targets.jigsaw import puzzle
from holdfast.config.targets import Detection, Jigsaw
from holdfast.data.world import world_scene
from holdfast.report.pictures import Outline, answer_picture, picture, placed, question_pictures, solution_picture


def decoded(uri):
    return Image.open(io.BytesIO(b64decode(uri.split(",")[1])))


@pytest.mark.parametrize("layout", ["composite", "pieces"])
@pytest.mark.parametrize("wording", ["position-to-piece", "piece-to-position"])
@pytest.mark.parametrize("base", [0, 1])
def test_the_right_answer_puts_the_original_back_together(layout, wording, base):
    scene = world_scene(3, "test", 1).image
    target = Jigsaw(grid=(2, 4), layout=layout, wording=wording, index_base=base)
    question = puzzle(scene, "scene", target, seed=7)
    solved = answer_picture(question, target, question.answer)
    assert np.array_equal(np.asarray(decoded(solved.uri)), np.asarray(scene))
    assert solved.marks == ("right",) * 8


@pytest.mark.parametrize("wording", ["position-to-piece", "piece-to-position"])
@pytest.mark.parametrize("answer", ["1 2 3 4", "2 2 2 2", "4 3 1 2", "1 1 4 4"])
def test_as_many_pieces_are_marked_right_as_the_grader_counts(wording, answer):
    target = Jigsaw(wording=wording)
    for number in range(8):
        question = puzzle(world_scene(0, "test", number).image, f"scene-{number}", target, seed=1)
        same = sum(a == b for a, b in zip(answer.split(), question.answer.split(), strict=True))
        assert answer_picture(question, target, answer).marks.count("right") == same


def test_a_position_that_gets_no_piece_stays_empty():
    target = Jigsaw(wording="piece-to-position")
    assert placed("1 1 3 4", "2 1 3 4", target) == [1, None, 2, 3]


def test_the_shown_pieces_carry_their_numbers():
    target = Jigsaw(index_base=0)
    board = question_pictures(puzzle(world_scene(0, "test", 0).image, "s", target, seed=1), target)
    assert board[0].marks == ("0", "1", "2", "3")


def test_a_pair_is_shown_as_it_was_and_not_put_together():
    target = Jigsaw(question="pair", layout="pieces")
    question = puzzle(world_scene(0, "test", 0).image, "s", target, seed=1)
    assert len(question_pictures(question, target)) == 2
    assert answer_picture(question, target, question.answer) is None


def test_large_pictures_are_made_small_enough_to_inline():
    noise = np.random.default_rng(0).integers(0, 255, (900, 1600, 3), dtype=np.uint8)
    found = picture(Image.fromarray(noise))
    assert max(decoded(found.uri).size) == 240
    assert len(found.uri) < 60_000


def test_answered_boxes_are_drawn_beside_the_right_ones():
    target = Detection(benchmark="detection", raster=16)
    question = detection.ask(target, Draw(0, "test", 1)).with_completions("s", target)._replace(answer="4 0 12 8")
    assert question_pictures(question, target)[0].outlines == ()
    right = Outline("right", 0.25, 0, 0.5, 0.5)
    assert solution_picture(question, target).outlines == (right,)
    found = answer_picture(question, target, "8 8 16 999; 5 5 2 2")
    assert found.outlines == (right, Outline("given", 0.5, 0.5, 0.5, 0.5))
    assert answer_picture(question, target, None) is None
