"""The data stage: complete, disjoint, and the same bytes every time."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from holdfast.benchmarks.catalog import grade
from holdfast.benchmarks.dataset import SPLITS, inputs_digest, make_data, shard_names
from holdfast.config.images import Folder
from holdfast.config.jobs import MakeData
from holdfast.config.prior import PRIOR_NAMES, Imported, Prior
from holdfast.config.targets import Jigsaw
from holdfast.data.images import open_source
from holdfast.data.shards import Question, read_questions, write_questions
from holdfast.errors import UserError

TARGET = Jigsaw(train=30, validation=6, test=12)
PRIOR = tuple(Prior(benchmark=name, questions=5) for name in PRIOR_NAMES)
WORLD = MakeData(images={"source": "world"}, target=TARGET, prior=PRIOR)
PHOTOS = MakeData(images=Folder(source="folder", tile=96), target=TARGET, prior=PRIOR[:1])


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, job in (("world", WORLD), ("photos", PHOTOS)):
        folders[name] = tmp_path_factory.mktemp(name)
        make_data(job, folders[name])
    return folders


@pytest.mark.parametrize(("name", "job"), [("world", WORLD), ("photos", PHOTOS)])
def test_the_same_job_gives_the_same_bytes_in_another_process(
    made: dict[str, Path], name: str, job: MakeData, tmp_path: Path
) -> None:
    program = (
        "import sys; from pathlib import Path; from holdfast.config.jobs import MakeData\n"
        "from holdfast.benchmarks.dataset import make_data\n"
        "make_data(MakeData.model_validate_json(sys.argv[1]), Path(sys.argv[2]))\n"
        "assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", program, job.model_dump_json(), tmp_path], check=True, env=environment)
    assert digests(tmp_path) == digests(made[name])


def test_another_seed_gives_other_puzzles(made: dict[str, Path], tmp_path: Path) -> None:
    make_data(WORLD.model_copy(update={"seed": 1}), tmp_path)
    ours, others = digests(made["world"]), digests(tmp_path)
    assert all(ours[name] != others[name] for name in ours)


@pytest.mark.parametrize("name", ["world", "photos"])
def test_splits_are_complete_and_share_no_image(made: dict[str, Path], name: str) -> None:
    splits = {split: read_questions(made[name] / f"target-{split}.parquet") for split in SPLITS}
    assert {split: len(questions) for split, questions in splits.items()} == {"train": 30, "validation": 6, "test": 12}
    seen = [{question.image_id for question in questions} for questions in splits.values()]
    assert sum(map(len, seen)) == len(set.union(*seen))
    ids = [question.id for questions in splits.values() for question in questions]
    assert len(set(ids)) == len(ids)


def test_every_file_is_there_and_every_reference_is_right(made: dict[str, Path]) -> None:
    assert sorted(digests(made["world"])) == shard_names(WORLD)
    for path in made["world"].iterdir():
        for question in read_questions(path):
            assert grade(question.grader, question.reference, question.answer).correct, (path.name, question.answer)


def test_few_images_give_several_different_puzzles_each(tmp_path: Path) -> None:
    for index in range(5):
        Image.effect_noise((64, 64), 90).save(tmp_path / f"{index}.png")
    out = tmp_path / "out"
    out.mkdir()
    job = MakeData(images=Folder(source="folder", path=tmp_path), target=TARGET, prior=PRIOR[:1])
    notes = make_data(job, out)
    assert sum(notes["images"].values()) == 5
    questions = read_questions(out / "target-train.parquet")
    assert len({(question.image_id, question.answer) for question in questions}) == 30


def test_damaged_photographs_cost_no_puzzle(tmp_path: Path) -> None:
    for index in range(12):
        Image.effect_noise((64, 64), 90).save(tmp_path / f"{index:02d}.jpg")
    photos = Folder(source="folder", path=tmp_path)
    damaged = open_source(photos, 0).split({"train": 20, "validation": 2, "test": 2})["train"][:2]
    for name in damaged:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:900])
    out = tmp_path / "out"
    out.mkdir()
    target = Jigsaw(train=20, validation=2, test=2)
    notes = make_data(MakeData(images=photos, target=target, prior=PRIOR[:1]), out)
    assert notes["skipped"] == sorted(damaged)
    questions = read_questions(out / "target-train.parquet")
    assert len(questions) == 20
    assert not {question.image_id for question in questions} & set(damaged)


def test_a_split_of_damaged_photographs_is_refused(tmp_path: Path) -> None:
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(b"\xff\xd8\xff damaged")
    with pytest.raises(UserError, match=r"none of the 1 image\(s\) of a split can be read, among them \d\.jpg"):
        make_data(MakeData(images=Folder(source="folder", path=tmp_path), target=TARGET, prior=PRIOR[:1]), tmp_path)


def test_photographs_with_names_in_latin_1_become_shards(tmp_path: Path) -> None:
    for name in ("caf\udce9", "na\udcefve", "ok"):
        Image.effect_noise((64, 64), 90).save(tmp_path / f"{name}.png")
    out = tmp_path / "out"
    out.mkdir()
    photos = Folder(source="folder", path=tmp_path)
    make_data(MakeData(images=photos, target=TARGET, prior=()), out)
    ids = {question.image_id for split in SPLITS for question in read_questions(out / f"target-{split}.parquet")}
    assert ids == {"caf\\xe9.png", "na\\xefve.png", "ok.png"}
    assert inputs_digest(photos, ())


def test_two_benchmarks_of_one_name_are_refused(tmp_path: Path) -> None:
    own = Imported(name="color", path=tmp_path / "own.jsonl")
    with pytest.raises(UserError, match="two benchmarks are named 'color'"):
        make_data(WORLD.model_copy(update={"prior": (*PRIOR, own)}), tmp_path)


def test_a_grid_that_does_not_fit_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"target\.grid"):
        make_data(WORLD.model_copy(update={"target": Jigsaw(grid=(9, 9))}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_digest_of_inputs_follows_their_content_and_names(tmp_path: Path) -> None:
    photos = Folder(source="folder", path=tmp_path)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    first = inputs_digest(photos, ())
    (tmp_path / "a.png").rename(tmp_path / "b.png")
    renamed = inputs_digest(photos, ())
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "b.png")
    changed = inputs_digest(photos, ())
    (tmp_path / "own.jsonl").write_text(json.dumps({"image": "b.png"}))
    imported = inputs_digest(photos, (Imported(name="own", path=tmp_path / "own.jsonl"),))
    assert len({first, renamed, changed, imported, inputs_digest(WORLD.images, PRIOR)}) == 5


def test_shards_give_back_what_was_written(tmp_path: Path) -> None:
    questions = [Question(f"{i}", "i", (b"1", b"2"), "p", "ä", "r", "g", "b", "t") for i in range(150)]
    assert write_questions(tmp_path / "shard.parquet", iter(questions)) == 150
    assert read_questions(tmp_path / "shard.parquet") == questions
    assert read_questions(tmp_path / "shard.parquet", limit=70) == questions[:70]


def test_a_full_disk_is_named() -> None:
    with pytest.raises(UserError, match=r"/dev/full: cannot be written \(no space left on device\)"):
        write_questions(Path("/dev/full"), [Question("1", "i", (b"1",), "p", "a", "r", "g", "b")])


def test_few_puzzles_of_each_answer_are_part_of_more_and_leave_the_test_alone(tmp_path: Path) -> None:
    for shots in (1, 2, None):
        target = Jigsaw(train=120, validation=2, test=5, per_class=shots)
        (tmp_path / str(shots)).mkdir()
        make_data(WORLD.model_copy(update={"target": target, "prior": ()}), tmp_path / str(shots))
    ids = {
        shots: [(puzzle.answer, puzzle.id) for puzzle in read_questions(tmp_path / shots / "target-train.parquet")]
        for shots in ("1", "2", "None")
    }
    assert len(ids["1"]) == len({answer for answer, _ in ids["1"]}) == 23
    assert set(ids["1"]) < set(ids["2"]) < set(ids["None"])
    assert max(sum(answer == other for other, _ in ids["2"]) for answer, _ in ids["1"]) == 2
    assert digests(tmp_path / "1")["target-test.parquet"] == digests(tmp_path / "None")["target-test.parquet"]
