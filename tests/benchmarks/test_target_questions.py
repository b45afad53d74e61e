"""Data of every target: complete, the same bytes every time, no image in two splits, few shots nested."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import public_sets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from holdfast.benchmarks.catalog import TARGETS, grade
from holdfast.benchmarks.dataset import SPLITS, inputs_digest, make_data, shard_names
from holdfast.benchmarks.public.rows import KNOWN
from holdfast.config.images import Folder, Hub, World
from holdfast.config.jobs import MakeData
from holdfast.config.prior import Imported, Prior
from holdfast.config.targets import Arithmetic, Banner, Classes, Columns, Counting, Detection, Public, Spatial, Target
from holdfast.data.folder import photographs
from holdfast.data.shards import Question, read_questions
from holdfast.errors import UserError

COUNTS = {"train": 20, "validation": 4, "test": 6}
PRIOR = (Prior(benchmark="color", questions=2),)
KINDS = {"classes": Classes, "spatial": Spatial, "banner": Banner, "detection": Detection, "counting": Counting}
KINDS["arithmetic"] = Arithmetic
SERVED = {"aircraft": "classes", "sat": "spatial", "coco": "detection", "refcoco": "detection"}


def made(target: Target, out: Path, **fields: object) -> dict[str, list[Question]]:
    out.mkdir()
    job = MakeData(images={"source": "world"}, target=target, prior=PRIOR, **fields)
    make_data(job, out)
    assert sorted(path.name for path in out.iterdir()) == shard_names(job)
    return {split: read_questions(out / f"target-{split}.parquet") for split in SPLITS}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def target_of(kind: str, **fields: object) -> Target:
    return KINDS[kind](benchmark=kind, **{**COUNTS, **fields})


def public_target(name: str, folder: Path, **fields: object) -> Target:
    copy = getattr(public_sets, name)(folder / name) if not (folder / name).exists() else folder / name
    public = Public(name=str(copy), columns=KNOWN[public_sets.NAMES[name]])
    return target_of(SERVED[name], public=public, **fields)


def check_apart(splits: dict[str, list[Question]]) -> None:
    """No image in two splits, no question twice, all references right."""
    shown = [{image for question in questions for image in question.images} for questions in splits.values()]
    assert sum(map(len, shown)) == len(set.union(*shown))
    told = [{question.prompt for question in questions if not question.images} for questions in splits.values()]
    assert sum(map(len, told)) == len(set.union(*told))
    ids = [question.id for questions in splits.values() for question in questions]
    assert len(ids) == len(set(ids))
    for question in (question for questions in splits.values() for question in questions):
        for completion in (question.reference, question.teacher):
            assert grade(question.grader, completion, question.answer).score == 1.0


@pytest.mark.parametrize("kind", TARGETS)
def test_a_drawn_target_fills_its_splits_and_comes_out_the_same(kind: str, tmp_path: Path) -> None:
    splits = made(target_of(kind), tmp_path / "a")
    assert {split: len(questions) for split, questions in splits.items()} == COUNTS
    check_apart(splits)
    made(target_of(kind), tmp_path / "b")
    made(target_of(kind), tmp_path / "c", seed=1)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a") != digests(tmp_path / "c")


@pytest.mark.parametrize("name", SERVED)
def test_a_public_target_fills_its_splits_and_comes_out_the_same(name: str, tmp_path: Path) -> None:
    target = public_target(name, tmp_path, train=6, validation=4, test=6)
    splits = made(target, tmp_path / "a")
    assert {split: len(questions) for split, questions in splits.items()} == {"train": 6, "validation": 4, "test": 6}
    check_apart(splits)
    made(target, tmp_path / "b")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_rows_of_text_of_ones_own_are_dealt_out_by_their_question(tmp_path: Path) -> None:
    rows = [{"question": f"{number % 12} + 2?", "answer": number % 12 + 2} for number in range(24)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    target = target_of("banner", path=tmp_path / "own.jsonl", grader="number", train=30, validation=2, test=2)
    splits = made(target, tmp_path / "a")
    asked = [{question.prompt for question in questions} for questions in splits.values()]
    assert sum(map(len, asked)) == len(set.union(*asked)) == 12
    assert {question.images for questions in splits.values() for question in questions} == {()}


def test_images_that_test_questions_show_are_not_learned_from(tmp_path: Path) -> None:
    """RefCOCO's training and validation questions are dealt out of one split with four rows an image."""
    target = public_target("refcoco", tmp_path, train=400, validation=3, test=3)
    splits = made(target, tmp_path / "a")
    check_apart(splits)
    assert 0 < len(splits["train"]) <= 36
    shown = {question.images for question in splits["validation"]}
    assert len(splits["train"]) + 4 * len(shown) == 40


def test_rows_that_are_equal_in_given_splits_stay_in_the_test_and_are_told(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    rows = [{"image": public_sets.photograph(i, "PNG"), "caption": "Two dogs"} for i in range(20)]
    again = []
    for row in rows[:6]:
        with Image.open(BytesIO(row["image"]["bytes"])) as image:
            buffer = BytesIO()
            image.save(buffer, "WEBP", lossless=True)
        again.append({"image": {"bytes": buffer.getvalue(), "path": None}, "caption": "Two cats"})
    public_sets.write(tmp_path / "own", features, {"train": rows, "test": again[:3], "dev": again[2:]})
    columns = Columns(caption="caption", splits=("train", "dev", "test"))
    target = target_of("counting", public=Public(name=str(tmp_path / "own"), columns=columns))
    out = tmp_path / "a"
    out.mkdir()
    notes = make_data(MakeData(images={"source": "world"}, target=target, prior=PRIOR), out)
    splits = {split: read_questions(out / f"target-{split}.parquet") for split in SPLITS}
    check_apart(splits)
    assert {split: len(questions) for split, questions in splits.items()} == {"train": 14, "validation": 3, "test": 3}
    assert notes["told"][0].startswith("7 row(s) are left out, since another split shows their picture: dev/00000000, ")


def test_rows_without_an_answer_and_splits_that_are_short_are_counted(tmp_path: Path) -> None:
    """By hand: of 24 rows in 3 splits, every second one's answer is no number; few of each class are no shortage."""
    features = datasets.Features({name: datasets.Value("string") for name in ("question", "answer")})

    def rows(split: str) -> list[dict[str, str]]:
        return [{"question": f"{split} {i} + 1?", "answer": "61/2" if i % 2 else str(i + 1)} for i in range(8)]

    public_sets.write(tmp_path / "own", features, {split: rows(split) for split in ("train", "dev", "test")})
    columns = Columns(image=None, question="question", answer="answer", splits=("train", "dev", "test"))

    def told(name: str, **counts: int) -> list[str]:
        public = Public(name=str(tmp_path / "own"), columns=columns)
        (tmp_path / name).mkdir()
        target = target_of("arithmetic", public=public, per_class=1, **counts)
        return make_data(MakeData(images={"source": "world"}, target=target, prior=PRIOR), tmp_path / name)["told"]

    unread, short = told("a", train=5, validation=8, test=6)
    assert unread.startswith("12 row(s) have no question and answer that arithmetic reads, and are left out: test/0000")
    what = "arithmetic: the data has fewer questions than are asked for: "
    assert short == f"{what}4 of 5 for train, 4 of 8 for validation, 4 of 6 for test."
    assert told("b", train=4, validation=4, test=5)[-1] == f"{what}4 of 5 for test."


def test_pictures_that_look_alike_in_two_splits_of_rows_are_told(tmp_path: Path) -> None:
    path = own_banners(tmp_path / "own", images=4)
    for index, source in enumerate(photographs(Folder(source="folder"))):
        with Image.open(source) as image:
            image.convert("RGB").resize((200, 200)).save(path.parent / f"{index}.png")
            if index == 0:
                image.convert("RGB").resize((150, 150)).save(path.parent / "3.png")
    (tmp_path / "a").mkdir()
    target = target_of("banner", path=path, train=2, validation=1, test=1)
    found = [
        make_data(MakeData(images={"source": "world"}, target=target, prior=(), seed=seed), tmp_path / "a")["told"]
        for seed in range(4)
    ]
    assert any(found)
    for told in filter(None, found):
        (sentence,) = told
        assert "image(s) look like one of another split, for example banner/00000" in sentence


def test_captions_that_state_a_count_are_asked_about(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    captions = ["Two dogs", "A dog", "Five men on 3 horses", "Seven boats at sea"]
    rows = [{"image": public_sets.photograph(i), "caption": captions[i % 4]} for i in range(48)]
    public_sets.write(tmp_path / "own", features, {"train": rows})
    columns = Columns(caption="caption", splits=("train", "train", "train"))
    public = Public(name=str(tmp_path / "own"), columns=columns)
    splits = made(target_of("counting", public=public, train=8, validation=2, test=2), tmp_path / "a")
    check_apart(splits)
    answers = Counter(question.answer for questions in splits.values() for question in questions)
    assert set(answers) == {"2", "7"}
    assert sum(answers.values()) == 12


@pytest.mark.parametrize("kind", ["classes", "counting"])
def test_few_shots_are_part_of_more_shots(kind: str, tmp_path: Path) -> None:
    wanted = {"train": 200, "validation": 2, "test": 8}
    found = {
        shots: made(target_of(kind, per_class=shots, **wanted), tmp_path / str(shots)) for shots in (1, 4, 16, None)
    }
    for shots in (1, 4, 16):
        counts = Counter(question.answer for question in found[shots]["train"])
        assert set(counts.values()) == {shots}
    ids = {shots: {question.id for question in splits["train"]} for shots, splits in found.items()}
    assert ids[1] < ids[4] < ids[16] < ids[None]
    assert len({len(splits["test"]) for splits in found.values()}) == 1


def test_few_shots_of_a_public_data_set_are_balanced(tmp_path: Path) -> None:
    splits = made(public_target("aircraft", tmp_path, train=24, per_class=2), tmp_path / "a")
    assert Counter(question.answer for question in splits["train"]) == dict.fromkeys(public_sets.VARIANTS, 2)


def own_banners(folder: Path, images: int = 12, **extra: object) -> Path:
    folder.mkdir()
    lines = []
    for index in range(images):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        lines += [
            {"image": f"{index}.png", "question": "Which brand?", "answer": f"Brand {index}", **extra},
            {"image": f"{index}.png", "question": "What price?", "answer": index + 0.99, "grader": "number", **extra},
        ]
    (folder / "banners.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder / "banners.jsonl"


def test_own_banners_are_split_by_image_and_keep_their_graders(tmp_path: Path) -> None:
    path = own_banners(tmp_path / "own", reasoning="The logo says it.")
    splits = made(target_of("banner", path=path, train=12, validation=4, test=4), tmp_path / "a")
    check_apart(splits)
    for questions in splits.values():
        assert {question.grader for question in questions} <= {"exact", "number"}
        assert all(question.prompt.endswith("then answer in <answer> </answer>.") for question in questions)
        assert all(question.teacher.startswith("<think> The logo says it. </think>") for question in questions)
    assert {question.benchmark for questions in splits.values() for question in questions} == {"banner"}


def test_questions_that_share_one_of_several_images_are_in_one_split(tmp_path: Path) -> None:
    path = own_banners(tmp_path / "own", images=18)
    pairs = [(first, first + step) for first in range(0, 18, 3) for step in (1, 2)]
    lines = [
        {"image": [f"{a}.png", f"{b}.png"], "question": f"{a} or {b}?", "answer": "a", "reasoning": "I look."}
        for a, b in pairs
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    splits = made(target_of("banner", path=path, train=4, validation=2, test=2), tmp_path / "a")
    check_apart(splits)
    assert {len(question.images) for questions in splits.values() for question in questions} == {2}


def test_the_digest_of_inputs_follows_a_targets_files(tmp_path: Path) -> None:
    path = own_banners(tmp_path / "own")
    target = target_of("banner", path=path)
    first = inputs_digest(MakeData(images={"source": "world"}, target=target, prior=()).images, (), [target])
    Image.new("RGB", (96, 32), "red").save(tmp_path / "own" / "0.png")
    images = MakeData(images={"source": "world"}, target=target, prior=()).images
    assert first
    assert inputs_digest(images, (), [target]) != first
    assert inputs_digest(images, (), [target_of("classes")]) == ""


@pytest.mark.parametrize("wrap", [str, lambda path: {"bytes": None, "path": path}, lambda path: [{"path": path}]])
def test_pictures_that_rows_of_a_local_data_set_name_count_as_its_files(tmp_path: Path, wrap) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "own").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "outside.png")
    cells = [wrap(str(tmp_path / "outside.png"))]
    pq.write_table(pa.table({"image": cells, "caption": ["Two dogs"]}), tmp_path / "own" / "train.parquet")
    target = target_of("counting", public=Public(name=str(tmp_path / "own"), columns=Columns(caption="caption")))
    images = Hub(source="hub", name=str(tmp_path / "own"))
    before = inputs_digest(World(), (), [target]), inputs_digest(images, ())
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "outside.png")
    after = inputs_digest(World(), (), [target]), inputs_digest(images, ())
    assert before[0] != after[0]
    assert before[1] != after[1]


def refused(target: Target, match: str, out: Path, **fields: object) -> None:
    job = {"images": {"source": "world"}, "prior": PRIOR, **fields}
    with pytest.raises(UserError, match=match):
        make_data(MakeData(target=target, **job), out)
    assert not list(out.glob("*.parquet"))


def test_what_cannot_be_made_is_refused_before_anything_is(tmp_path: Path) -> None:
    nowhere = target_of("banner", path=tmp_path / "nowhere.jsonl")
    refused(nowhere, r"target\.path: .*nowhere\.jsonl is no JSONL or Parquet file", tmp_path)
    unknown = target_of("detection", public=Public(name="owner/data"))
    refused(unknown, r"target\.public: the columns of owner/data are not known", tmp_path)
    wrong = target_of("spatial", public=Public(name="detection-datasets/coco"))
    refused(wrong, r"spatial needs `question`, which detection-datasets/coco lacks", tmp_path)
    refused(target_of("classes"), r"images: classes has images of its own", tmp_path, images=Folder(source="folder"))
    own = Imported(name="classes", path=tmp_path / "own.jsonl")
    refused(target_of("classes"), r"prior: 'classes' is the target's name", tmp_path, prior=(own,))


def test_a_split_without_questions_is_refused(tmp_path: Path) -> None:
    target = public_target("refcoco", tmp_path, find="all")
    columns = Columns(boxes="bbox", splits=("val", "val", "val"))
    assert isinstance(target, Detection)
    empty = target.model_copy(update={"public": Public(name=str(tmp_path / "refcoco"), columns=columns)})
    with pytest.raises(UserError, match=r"target\.test: the data holds no question"):
        make_data(MakeData(images={"source": "world"}, target=empty, prior=PRIOR), tmp_path)
