"""A model is asked public benchmarks, with images and without, and its answers go to a harness's files and back."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import prior_sets
import pytest
from architectures import made
from tiny_jobs import shards
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

from flows.commands.samples import imported
from holdfast.benchmarks.dataset import make_data
from holdfast.benchmarks.public.questions import splits
from holdfast.config.images import World
from holdfast.config.jobs import Evaluate, MakeData
from holdfast.config.prior import PublicPrior
from holdfast.config.refs import DataRef, ModelRef
from holdfast.config.results import Result
from holdfast.config.targets import Counting, Jigsaw
from holdfast.data.chat import rendered
from holdfast.data.shards import prior_shard, read_questions, write_questions
from holdfast.data.training_set import TrainingRow
from holdfast.errors import UserError
from holdfast.evaluation.harness_samples import file_name, rows
from holdfast.evaluation.records import read_records
from holdfast.models.encode import encode
from holdfast.models.load import load_config
from holdfast.models.prompt_check import TRIED, require_readable
from holdfast.training.dataset import conversation

ASKED = {"mme": {}, "gsm8k": {"shots": 0}, "arc": {"system": "Be brief."}, "refcoco": {"boxes": "qwen2.5-vl"}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataRef:
    place = tmp_path_factory.mktemp("public")
    for name, more in ASKED.items():
        copy = prior_sets.copy(place / "copies" / name, name)
        prior = PublicPrior(benchmark=name, data=str(copy), questions=4, validation=2, **more)
        for split, questions in splits(prior, 0, []):
            write_questions(place / prior_shard(name, split), questions)
    return DataRef(path=place, digest="public")


@pytest.fixture(scope="module")
def evaluated(data: DataRef, tiny_model: ModelRef, run_stage: Callable[..., Path], tmp_path_factory: Any) -> Path:
    benchmarks = tuple(shards(data, name, "prior") for name in ASKED)
    job = Evaluate(models=(tiny_model,), base=tiny_model, benchmarks=benchmarks, limit=8, validation=2, batch_size=8)
    return run_stage(job, tmp_path_factory.mktemp("evaluated"))


def test_a_model_answers_and_the_authors_metrics_stand_beside_ours(evaluated: Path, data: DataRef) -> None:
    found = Result.model_validate_json((evaluated / "result.json").read_text()).metrics
    for name in ASKED:
        for measure in ("accuracy", "strict", "unparsed", "logprob", "score"):
            assert f"prior/{name}/{measure}" in found
    assert {"prior/mme/accuracy_plus", "prior/gsm8k/authors_strict", "prior/arc/authors_accuracy"} < set(found)
    records = read_records(evaluated / "records" / "step-000000" / "mme.parquet")
    assert {record.group for record in records if record.split == "test"} == {
        question.image_id.removeprefix("mme/") for question in read_questions(data.path / "prior-mme.parquet")
    }


def test_a_system_prompt_comes_first_and_a_prefill_last(data: DataRef, processor: Any) -> None:
    [question, *_] = read_questions(data.path / "prior-arc.parquet")
    text = rendered(processor, question)
    assert text.index("Be brief.") < text.index("Which barks")
    assert text.endswith("The best answer is")
    ids = encode(processor, [question])[0]["input_ids"].tolist()
    assert ids == processor.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("target", [Jigsaw, partial(Counting, benchmark="counting")])
def test_a_targets_system_prompt_is_read_in_training_and_evaluation(
    target: Any, processor: Any, tmp_path: Path
) -> None:
    few = target(train=1, validation=1, test=1, system="Be brief.")
    make_data(MakeData(images=World(), target=few, prior=[{"benchmark": "color", "questions": 1}]), tmp_path)
    for split in ("train", "test"):
        [question] = read_questions(tmp_path / f"target-{split}.parquet")
        assert "Be brief." in rendered(processor, question)
        assert conversation(processor, TrainingRow(question))["prompt"][0]["role"] == "system"


def test_boxes_of_another_family_or_of_an_image_that_is_resized_again_are_refused(
    data: DataRef, processor: Any, tiny_model: ModelRef
) -> None:
    config, real = load_config(tiny_model), copy.deepcopy(processor)
    questions = read_questions(data.path / "prior-refcoco.parquet")
    # The bundled model's patches are not those of Qwen2.5-VL.
    with pytest.raises(UserError, match=r"the processor makes 128×96 pixels of the 112×84 in which the box of"):
        require_readable(processor, config, "x", questions)
    config.vision_config.patch_size, real.image_processor = 14, Qwen2VLImageProcessor()
    require_readable(real, config, "x", questions)
    other = json.dumps({**json.loads(questions[0].details), "boxes": "qwen3-vl"})
    with pytest.raises(
        UserError, match=r"prior\.refcoco\.boxes: qwen3-vl is asked for, and model\.path is a qwen2\.5-vl"
    ):
        require_readable(real, config, "x", [questions[0]._replace(details=other)])
    real.image_processor.size = {"shortest_edge": 3136, "longest_edge": 112 * 84}
    require_readable(real, config, "x", questions)
    large = questions[0]._replace(
        id="large", details=json.dumps({**json.loads(questions[0].details), "size": [224, 168]})
    )
    few = [questions[0]] * 2 * TRIED
    with pytest.raises(UserError, match="makes 112×84 pixels of the 224×168 in which the box of large is"):
        require_readable(real, config, "x", [*few, large])
    real.image_processor.size = {"shortest_edge": 224 * 168, "longest_edge": 10**6}
    with pytest.raises(UserError, match="makes 224×168 pixels of the 112×84"):
        require_readable(real, config, "x", few)


def test_pixels_are_refused_for_a_family_without_a_rule_and_thousandths_are_not(data: DataRef) -> None:
    model, real = made("gemma3")
    question = read_questions(data.path / "prior-refcoco.parquet")[0]
    with pytest.raises(
        UserError, match=r"prior\.refcoco\.boxes: qwen2\.5-vl counts pixels .* is a gemma3; write qwen3"
    ):
        require_readable(real, model.config, "x", [question])
    for family in ("qwen3-vl", "unit"):
        details = json.dumps({**json.loads(question.details), "boxes": family})
        require_readable(real, model.config, "x", [question._replace(details=details)])


@pytest.mark.parametrize("name", ASKED)
def test_answers_that_are_exported_and_imported_have_the_same_verdicts(
    evaluated: Path, data: DataRef, name: str, tmp_path: Path
) -> None:
    records = [r for r in read_records(evaluated / "records/step-000000" / f"{name}.parquet") if r.split == "test"]
    shard = data.path / f"prior-{name}.parquet"
    file = tmp_path / file_name(name, datetime(2026, 8, 6, 10, 22, 23, 123456))
    lines = list(rows(records, read_questions(shard)))
    assert [float(row.get("holdfast", row)["cut"]) for row in lines] == [float(record.cut) for record in records]
    file.write_text("".join(json.dumps(row) + "\n" for row in lines))
    out = tmp_path / "records.parquet"
    # lmms-eval leaves out what was asked; of a box it repeats it.
    if name == "mme":
        with pytest.raises(UserError, match=r"row 1: lmms-eval's files do not hold what was asked; name a shard"):
            list(imported(file, None, None, None))
    shown = "\n".join(imported(file, None, shard if name == "mme" else None, out))
    back = read_records(out)
    assert [(r.correct, r.strict, r.authors, r.group, r.parsed) for r in back] == [
        (r.correct, r.strict, r.authors, r.group, r.parsed) for r in records
    ]
    assert f"{name}: {len(records)} answers" in shown
    assert ("theirs  holdfast " if name in ("mme", "refcoco") else "theirs  holdfast/correct") in shown


def test_a_box_of_lmms_evals_own_is_graded_by_what_its_metrics_repeat(tmp_path: Path) -> None:
    file = tmp_path / "20260806_102223_samples_refcoco_bbox_rec_val.jsonl"
    repeated = {"refcoco_IoU": {"ann_id": "0", "answer": "man", "bbox": [0.0, 0.0, 1.0, 1.0]}}
    file.write_text(json.dumps({"doc_id": 7, "filtered_resps": "[0, 0, 1, 0.75]", **repeated}) + "\n")
    assert "ours    authors_iou                      0.7500" in list(imported(file, None, None, None))[3:][2]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "holds no sample"),
        ("[]\n", "is no sample of a harness"),
        ("{", "is no JSON"),
        ('{"doc_id": 0, "doc": {"question": "?"}, "resps": [["1"]]}\n', "its doc has no 'answer'"),
    ],
)
def test_a_file_that_is_none_of_theirs_is_a_sentence(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "samples_gsm8k_2026-08-06T10-22-23.1.jsonl"
    file.write_text(content)
    with pytest.raises(UserError, match=told):
        list(imported(file, None, None, None))
    with pytest.raises(UserError, match="no such file"):
        list(imported(tmp_path / "samples_unknown.jsonl", None, None, None))
    (tmp_path / "samples_unknown.jsonl").touch()
    with pytest.raises(UserError, match=r"'unknown' is none of the benchmarks graded here; name one with --benchmark"):
        list(imported(tmp_path / "samples_unknown.jsonl", None, None, None))
