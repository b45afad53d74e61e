import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config.images import Folder
from holdfast.config.methods import SFT, Answers, Teacher
from holdfast.config.model import Model
from holdfast.config.refs import ModelRef
from holdfast.config.study import Compute, Study
from tasks.certificate import Parts, config_digest, digest, issue, parts_of

STUDY = Study(
    name="study",
    arms={
        "answers": (SFT(method="sft", source=Answers()),),
        "teacher": (SFT(method="sft", source=Teacher()),),
    },
    replicates=2,
)
BASE = ModelRef(path="/anywhere", digest="b")
DATA = {"study-1/target-train.parquet": "1", "study-1/target-test.parquet": "2"}
CODE = {"train": "t", "evaluate": "e"}
PARTS = parts_of(STUDY, BASE, DATA, CODE)


def reordered(mapping: dict) -> dict:
    return dict(reversed(mapping.items()))


def test_the_order_in_which_it_is_put_together_changes_nothing():
    study = STUDY.model_copy(update={"arms": reordered(STUDY.arms)})
    assert digest(parts_of(study, BASE, reordered(DATA), reordered(CODE))) == digest(PARTS)


def test_every_part_counts():
    changes = {
        "data": {**DATA, "study-1/target-test.parquet": "3"},
        "config": "c",
        "code": {**CODE, "train": "u"},
        "lock": "l",
        "seeds": (1, 2, 3),
        "base": "c",
    }
    assert changes.keys() == Parts.model_fields.keys()
    digests = [digest(PARTS), *(digest(PARTS.model_copy(update={name: value})) for name, value in changes.items())]
    assert len(set(digests)) == len(digests)


@given(st.dictionaries(st.text(), st.text(), min_size=1), st.dictionaries(st.text(), st.text()))
def test_what_moves_between_two_parts_is_told_apart(data: dict, code: dict):
    one, other = (PARTS.model_copy(update={"data": a, "code": b}) for a, b in itertools.permutations((data, code), 2))
    assert (digest(one) == digest(other)) == (data == code)


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({"compute": Compute(threads=2, parallel=3)}, True),
        ({"images": Folder(source="folder", path="/there")}, True),
        ({"model": Model(path="/there")}, True),
        ({"seed": 1}, False),
        ({"replicates": 3}, False),
        ({"arms": {"answers": STUDY.arms["answers"]}}, False),
    ],
)
def test_places_and_threads_are_no_part_of_the_configuration(changes: dict, is_same: bool):
    before = STUDY.model_copy(update={"images": Folder(source="folder", path="/here")} if "images" in changes else {})
    assert (config_digest(before) == config_digest(before.model_copy(update=changes))) == is_same


def test_a_certificate_survives_being_written_down():
    issued = issue(PARTS, "0.dir")
    again = type(issued).model_validate_json(issued.model_dump_json())
    assert again == issued
    assert digest(again.parts) == issued.digest
    assert issued.parts.seeds == (STUDY.seed, STUDY.seed, STUDY.training_seed(2))
