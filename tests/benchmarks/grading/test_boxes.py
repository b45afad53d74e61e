"""Boxes in every shape in which models write them; other numbers are no coordinates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.benchmarks.catalog import grade
from holdfast.benchmarks.grading.boxes import answered, written

ONE, TWO = "10 20 30 40", "10 20 30 40; 50 60 70 80"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10 20 30 40", ONE),
        ("[10,20,30,40]", ONE),
        ("[10, 20, 30, 40].", ONE),
        ("(10, 20, 30, 40)", ONE),
        ("[[10,20,30,40]]", ONE),
        ("10, 20, 30, 40.", ONE),
        ("10,20,30,40", ONE),
        ('{"bbox_2d": [10, 20, 30, 40], "label": "person 2"}', ONE),
        ('[{"bbox_2d": [10, 20, 30, 40], "label": "person 2"}]', ONE),
        ('```json\n[\n\t{"bbox_2d": [10, 20, 30, 40], "label": "person 2"}\n]\n```', ONE),
        ('[{"bbox_2d": [10, 20, 30, 40], "label": "a 1"}, {"bbox_2d": [50, 60, 70, 80], "label": "b 2"}]', TWO),
        ("{'bbox_2d': [10, 20, 30, 40], 'label': 'person 2'}", ONE),
        ('{"label": "person 2", "bbox": [10,20,30,40], "score": 0.95}', ONE),
        ('{"id": 3, "box": [10,20,30,40]}', ONE),
        ('{"person 2": [10,20,30,40]}', ONE),
        ('{"x1": 10, "y1": 20, "x2": 30, "y2": 40}', ONE),
        ("x1: 10, y1: 20, x2: 30, y2: 40", ONE),
        ("x1=10, y1=20, x2=30, y2=40", ONE),
        ("x1=10 y1=20 x2=30 y2=40.", ONE),
        ("xmin: 10, ymin: 20, xmax: 30, ymax: 40", ONE),
        ('{"xmin": 10, "ymin": 20, "xmax": 30, "ymax": 40}', ONE),
        ("x_min: 10, y_min: 20, x_max: 30, y_max: 40", ONE),
        ('{"left": 10, "top": 20, "right": 30, "bottom": 40}', ONE),
        ('{"y1": 20, "x1": 10, "y2": 40, "x2": 30}', ONE),
        ("<|box_start|>(10,20),(30,40)<|box_end|>", ONE),
        ("<|object_ref_start|>person 2<|object_ref_end|><|box_start|>(10,20),(30,40)<|box_end|>", ONE),
        ("(10,20),(30,40)", ONE),
        ("(10, 20), (30, 40).", ONE),
        ("[10, 20], [30, 40]", ONE),
        ("[[10,20],[30,40]]", ONE),
        ("<ref>person 2</ref><box>[[10, 20, 30, 40]]</box>", ONE),
        ("person 2(10,20),(30,40)", ONE),
        ("The box is [10, 20, 30, 40].", ONE),
        ("The box is 10 20 30 40.", ONE),
        ("I see 2 people: [10,20,30,40]", ONE),
        ("I see 2 people: 10 20 30", None),
        ("I see 2 people: 10 20 30 40", None),
        ("I see 2 people, 10 20", None),
        ("person 2: [10,20,30,40]", ONE),
        ("1. [10,20,30,40]\n2. [50,60,70,80]", TWO),
        ("10 20 30 40; 50 60 70 80", TWO),
        ("[[10,20,30,40],[50,60,70,80]]", TWO),
        ("(10,20,30,40),(50,60,70,80)", TWO),
        ("10 20 30 40 50 60 70 80", TWO),
        ("[10,20,30,40] and [50,60,70,80]", TWO),
        ("[10,20,30,40]\n[50,60,70,80]", TWO),
        ("10 20 30 40\n50 60 70 80", TWO),
        ("1 2 3", None),
        ("1 2 3 4 5", None),
        ("-1 2 3 4", None),
        ("nan 1 2 3", None),
        ("1e9 2 3 4", None),
        ("x 1 2 3 4", None),
        ('{"label": "a 5\\" disk, 3 parts", "bbox_2d": [10, 20, 30, 40]}', ONE),
        ("[10,20,30,40] (2 people)", ONE),
        ("[10, 20, around 30, 40]", None),
        ("x: 10-30, y: 20-40", None),
        ("[−10, 20, 30, 40]", None),
        ("[10, 20, 30, inf]", None),
        ("[1e400, 20, 30, 40]", None),
        ("[10, 20, 30, 99999999]", None),
        ("I see 2 people: 10, 20, 30, 40, 50", None),
        ("I see 2 people at 20, 30 and 40", None),
        ("tensor([[10., 20., 30., 40.]])", ONE),
        ("Box(x1=10, y1=20, x2=30, y2=40)", ONE),
        ('Here it is:\n```json\n[{"bbox_2d": [10, 20, 30, 40], "label": "person 2"}]\n```', ONE),
        ("", None),
        ("none", None),
        ("[1,2,3]", None),
        ("[1,2,3,4,0.9]", None),
        ("[[1,2,3],[4,5,6,7,8]]", None),
        ("[NaN, 1, 2, 3]", None),
        ("[null, 1, 2, 3, 4]", None),
        ("10-20, 30-40", None),
        ("10 - 30, 20 - 40", None),
        ("10%, 20%, 30%, 40%", None),
        ("[10px, 20px, 30px, 40px]", ONE),
        ("x1: 10px, y1: 20px, x2: 30px, y2: 40px", ONE),
        ("(10, 20) - (30, 40)", ONE),
        ("(10,20) to (30,40)", ONE),
        ("from (10,20) to (30,40)", ONE),
        ('{"x": 10, "y": 20, "width": 20, "height": 20}', ONE),
        ('{"bbox": {"x1": 10, "y1": 20, "x2": 30, "y2": 40}}', ONE),
        ('{"objects": [{"bbox_2d": [10,20,30,40], "label": "2"}]}', ONE),
        ('{"bbox_2d": "[10, 20, 30, 40]"}', ONE),
        ('"[10, 20, 30, 40]"', ONE),
        ('["10","20","30","40"]', ONE),
        ("top left: (10, 20), bottom right: (30, 40)", ONE),
        ("top-left: (10, 20), bottom-right: (30, 40)", ONE),
        ('{"top_left": [10,20], "bottom_right": [30,40]}', ONE),
        ("x1, y1, x2, y2 = 10, 20, 30, 40", ONE),
        ("(x1, y1, x2, y2) = (10, 20, 30, 40)", ONE),
        ("x1 10 y1 20 x2 30 y2 40", ONE),
        ("bbox: 10, 20, 30, 40", ONE),
        ("bbox_2d: [10, 20, 30, 40]", ONE),
        ("Answer: 10 20 30 40", ONE),
        ("box = [10,20,30,40]", ONE),
        ("**[10, 20, 30, 40]**", ONE),
        ("\\boxed{[10, 20, 30, 40]}", ONE),
        ("$[10,20,30,40]$", ONE),
        ('{"bbox_2d": [10, 20, 30, 40], "label": "per', None),
        ("[10, 20, 30, 40", None),
        ("[10,20,30,40] or 50 60 70 80", TWO),
        ('{"label": "person", "count": 2}', None),
        ('{"x1": 10, "y1": 20, "x2": 30}', None),
        ('{"bbox": [10,20,30]}', None),
        ("１０ ２０ ３０ ４０", ONE),
        ("【10, 20, 30, 40】", ONE),
        ("（10，20），（30，40）", ONE),
        ("10、20、30、40", ONE),
        ("[10.0, 20.0, 30.0, 40.0]", ONE),
        ("[10.5, 20, 30, 40]", "10.5 20 30 40"),
        ("image 640x480: [10,20,30,40]", ONE),
        ("The image is 640 by 480. The box is [10,20,30,40].", ONE),
        ('{"image_size": [640, 480], "bbox": [10,20,30,40]}', ONE),
        ('{"bbox_2d": [10, 20, 30, 40], "width": 640, "height": 480}', ONE),
        ("30 40 10 20", "30 40 10 20"),
        ("There are 4 boxes 1 2 3 4 5", None),
        ("2 [10,20,30,40]", None),
        ("It's at [10, 20, 30, 40], that's all", ONE),
        ('[{"label": "car", "bbox_2d": [10, 20, 30, 40]},\n {"label": "car", "bbox_2d": [50, 60, 70, 80]}]', TWO),
        ("car: [10,20,30,40], dog: [50,60,70,80]", TWO),
        ('{"car": [[10,20,30,40],[50,60,70,80]]}', TWO),
        ("<|box_start|>(10,20),(30,40)<|box_end|><|box_start|>(50,60),(70,80)<|box_end|>", TWO),
        ("[x1: 10, y1: 20, x2: 30, y2: 40]", ONE),
        ("(x1=10, y1=20, x2=30, y2=40)", ONE),
        ("<box>(10,20),(30,40)</box>", ONE),
        ('{"bbox_2d": [10, 20, 30, 40], "point_2d": [15, 25]}', ONE),
        ('[{"box_2d": [10, 20, 30, 40], "label": "x"}]', ONE),
        ("<bbox>[10,20,30,40]</bbox>", ONE),
        ("{10, 20, 30, 40}", ONE),
        ("The answer is: [10, 20, 30, 40] (confidence 0.9)", ONE),
        ("[0.1, 0.2, 0.3, 0.4]", "0.1 0.2 0.3 0.4"),
        ("1.2.3 4 5 6 7", None),
        ("12:30 1 2", None),
        ("5.960464477539063e-08 0 1 1", "5.96046e-08 0 1 1"),
        ('{"bbox_2d": [10, 20, 30, 40],}', ONE),
        ("[10;20;30;40]", ONE),
        ("x: 10, y: 20, w: 20, h: 20", ONE),
        ("[[10, 20], [30, 40], [50, 60]]", None),
        ("person [10,20,30,40] 0.98", ONE),
    ],
)
def test_a_text_holds_certain_boxes_or_none(text: str, expected: str | None) -> None:
    for completion in (text, f"<think> I see 2 </think> <answer> {text} </answer>"):
        found = answered(completion)
        assert (found and written(found)) == expected


@pytest.mark.parametrize("grader", ["box", "detection", "grounding"])
def test_qwens_own_way_of_writing_is_read_by_every_grader_of_boxes(grader: str) -> None:
    text = '<answer> {"bbox_2d": [10, 20, 30, 40], "label": "person 2"} </answer>'
    assert grade(grader, text, ONE) == (ONE, True, 1.0)


@pytest.mark.parametrize("grader", ["box", "detection"])
def test_an_answer_of_a_users_file_may_have_any_of_these_shapes(grader: str) -> None:
    for answer in (
        '{"bbox_2d": [10, 20, 30, 40], "label": "person 2"}',
        "(10,20),(30,40)",
        "x1: 10, y1: 20, x2: 30, y2: 40.",
    ):
        assert grade(grader, f"<answer> {ONE} </answer>", answer) == (ONE, True, 1.0)


def test_corners_in_the_wrong_order_are_read_and_worth_nothing() -> None:
    assert grade("box", "<answer> 30 40 10 20 </answer>", ONE) == ("30 40 10 20", False, 0.0)


def test_two_boxes_that_differ_are_no_answer_to_a_question_for_one() -> None:
    assert grade("box", f"<answer> {TWO} </answer>", ONE).parsed is None
    assert grade("box", "<answer> [10,20,30,40], so [10,20,30,40] </answer>", ONE).correct


@given(st.lists(st.tuples(*[st.integers(0, 999)] * 4), min_size=1, max_size=4), st.integers(0, 99))
def test_labels_and_scores_never_move_a_box(sides: list[tuple[int, ...]], number: int) -> None:
    shown = [{"label": f"person {number}", "id": number, "bbox_2d": list(box), "score": number / 100} for box in sides]
    found = answered(f"<answer> ```json\n{shown}\n``` </answer>".replace("'", '"'))
    assert found == [tuple(map(float, box)) for box in sides]
