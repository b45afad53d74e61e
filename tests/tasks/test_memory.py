from pathlib import Path

import pytest

from holdfast.artifacts import DataRef, FileRef, ModelRef
from holdfast.config import SFT, Answers, Compute, Evaluation, Folder, Imported, Jigsaw, Model, Recipe, Study
from holdfast.jobs import BuildBase, Check, MakeData, Train
from tasks import memory
from tasks.memory import stage_key


def train(**changes) -> Train:
    fields = {
        "stage": SFT(method="sft", source=Answers(), trainer={"max_steps": 6}),
        "start": ModelRef(path="/here/model", digest="m"),
        "data": DataRef(path=Path("/here/data"), digest="d"),
        "reference": FileRef(path=Path("/here/drift.parquet"), digest="r"),
        "evaluation": Evaluation(),
    }
    return Train(**(fields | changes))


@pytest.mark.parametrize(
    "change",
    [
        {"start": ModelRef(path="/there/model", digest="m")},
        {"data": DataRef(path=Path("/there"), digest="d")},
        {"reference": FileRef(path=Path("/there.parquet"), digest="r")},
        {"threads": 2},
        {"device": "cpu"},
    ],
)
def test_a_key_ignores_places_and_parallelism(change):
    assert stage_key(train(**change)) == stage_key(train())


@pytest.mark.parametrize(
    "change",
    [
        {"start": ModelRef(path="/here/model", digest="other")},
        {"start": ModelRef(path="/here/model", digest="m", revision="v2")},
        {"data": DataRef(path=Path("/here/data"), digest="other")},
        {"samples": FileRef(path=Path("/here/samples.parquet"), digest="s")},
        {"seed": 1},
        {"stage": SFT(method="sft", source=Answers(), trainer={"max_steps": 7})},
        {"evaluation": Evaluation(every=0.5)},
    ],
)
def test_a_key_sees_what_decides_the_result(change):
    assert stage_key(train(**change)) != stage_key(train())


def test_a_key_of_data_sees_the_files_and_not_where_they_are():
    def made(path: str, inputs: str) -> str:
        prior = (Imported(name="mine", path=Path(path)),)
        return stage_key(
            MakeData(images=Folder(source="folder", path=path), target=Jigsaw(), prior=prior, inputs=inputs)
        )

    assert made("/here", "one") == made("/there", "one")
    assert made("/here", "one") != made("/here", "two")


def test_a_key_of_a_check_sees_which_model_is_checked():
    def checked(model: str, threads: int = 1) -> str:
        arms = {"answers": (SFT(method="sft", source=Answers()),)}
        study = Study(name="s", arms=arms, model=Model(path=model), compute=Compute(threads=threads))
        return stage_key(Check(study=study, data=DataRef(path=Path("/here"), digest="d")))

    assert checked("bundled") != checked("Qwen/Qwen2.5-VL-3B-Instruct")
    assert checked("bundled") == checked("bundled", threads=2)


def test_a_key_sees_the_kind_of_job():
    assert stage_key(train()) != stage_key(BuildBase(recipe=Recipe()))


def test_a_key_sees_a_changed_line_of_code(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "module.py").write_text("one = 1\n")
    before = memory.code_digest(tmp_path)
    (tmp_path / "deep" / "module.py").write_text("one = 2\n")
    memory.code_digest.cache_clear()
    after = memory.code_digest(tmp_path)
    assert before != after

    unchanged = stage_key(train())
    monkeypatch.setattr(memory, "code_digest", lambda: after)
    assert stage_key(train()) != unchanged


def test_a_key_sees_the_lock_file(tmp_path):
    lock = tmp_path / "requirements.lock"
    assert memory.lock_digest(lock) == ""
    memory.lock_digest.cache_clear()
    lock.write_text("torch==2\n")
    assert memory.lock_digest(lock)
