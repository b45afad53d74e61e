"""Every architecture goes through a short study: check, base, both methods, an adapter, influence of each of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from architectures import VISION_LANGUAGE, made
from PIL import Image
from transformers import Qwen2Config, Qwen2ForCausalLM

from flows.evaluation import questions_of
from flows.jobs import Start, check_job, trace_job, train_job
from holdfast.config.jobs import AnyJob, Result
from holdfast.config.refs import DataRef, ModelRef
from holdfast.config.study import Study
from holdfast.data.shards import png, read_questions, write_questions
from holdfast.models.load import save_checkpoint
from holdfast.models.tiny.processor import build_processor
from tasks.stage import StageRun, file_of

REWARD = "def letters(completions, **columns):\n    return [len(chat[0]['content']) / 10 for chat in completions]\n"
STEPS = {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3}
DRAWN = {**STEPS, "num_generations": 2, "max_completion_length": 24, "beta": 0.1}
LORA = {"r": 4, "target_modules": "all-linear"}
SHAPES = [[(64, 64)], [(90, 60), (60, 150)], [], [(150, 60)]]
SETTINGS = {
    "evaluation": {"keep": 1, "every": 1, "max_new_tokens": 96, "drift_prompts": 4, "batch_size": 8},
    "influence": {"every": 1, "samples": 4, "questions": 4, "batch_size": 4},
    "compute": {"device": "cpu"},
}


@pytest.fixture(scope="module")
def unlike_data(tiny_data: DataRef, tmp_path_factory: pytest.TempPathFactory) -> DataRef:
    """The tiny study's questions with images of other shapes: one, two or none of a question."""
    place = tmp_path_factory.mktemp("unlike")
    for file in tiny_data.path.iterdir():
        shown = [
            question._replace(images=tuple(png(Image.new("RGB", size, (n, 9, 9))) for size in SHAPES[n % len(SHAPES)]))
            for n, question in enumerate(read_questions(file))
        ]
        write_questions(place / file.name, shown)
    return DataRef(path=place, digest="unlike")


def study_of(base: Path) -> Study:
    both = {"freeze": ["vision", "projector"]}
    reinforced = {**both, "method": "grpo", "rewards": {"own": {"function": "own:letters"}}, "trainer": DRAWN}
    taught = {**both, "method": "sft", "source": "teacher", "trainer": STEPS}
    arms = {"sft": [taught], "grpo": [reinforced], "lora": [{**taught, "lora": LORA}, {**reinforced, "lora": LORA}]}
    prior = [{"benchmark": name} for name in ("color", "count")]
    return Study(name="short", arms=arms, model={"path": str(base)}, prior=prior, **SETTINGS)


Runs = Callable[[AnyJob, str], StageRun]


@pytest.fixture
def runs(run_stage: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Run a job, whose numbers must be finite."""
    (tmp_path / "own.py").write_text(REWARD)
    monkeypatch.chdir(tmp_path)

    def run(job: AnyJob, name: str) -> StageRun:
        out = run_stage(job, tmp_path / name)
        result = Result.model_validate_json((out / "result.json").read_text())
        assert all(map(math.isfinite, result.metrics.values())), name
        kind = {"check": "check", "evaluate": "evaluate", "train": "train", "influence": "influence"}[job.verb]
        return StageRun(
            kind=kind, arm=name, run_id="", path=out, digest=name, found=False, seconds=result.seconds, result=result
        )

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", VISION_LANGUAGE)
def test_a_short_study_of_any_architecture_ends_with_finite_numbers(
    runs: Runs, unlike_data: DataRef, tmp_path: Path, name: str
) -> None:
    model, processor = made(name)
    save_checkpoint(model, processor, tmp_path / "base")
    study = study_of(tmp_path / "base")
    runs(check_job(study, unlike_data), "check")
    base = ModelRef(path=str(tmp_path / "base"), digest=name)
    questions = questions_of(study, unlike_data, base)
    measured = runs(questions.job([base], tuple(questions.parts())), "base")
    start = Start(data=unlike_data, base=base, references=file_of(measured, "references.parquet"))
    questions = questions_of(study, unlike_data, base, start.references)
    for arm, stages in study.arms.items():
        model_now = base
        for number, stage in enumerate(stages):
            trained = runs(train_job(study, stage, model_now, start, study.seed), f"{arm}-{number}")
            assert trained.result.metrics["train/grad_norm"] > 0
            assert study.influence is not None
            job = trace_job(trained, study.influence)
            traced = runs(job, f"{arm}-{number}-influence")
            assert any(value for metric, value in traced.result.metrics.items() if metric.endswith("/dot"))
            model_now = job.kept[-1]
        runs(questions.job([model_now], tuple(questions.parts())), f"{arm}-evaluation")


@pytest.mark.slow
def test_a_model_without_eyes_is_refused_by_the_check(
    run_stage: Callable[..., Path], unlike_data: DataRef, tmp_path: Path
) -> None:
    words = build_processor().tokenizer
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    Qwen2ForCausalLM(Qwen2Config(vocab_size=len(words), **sizes)).save_pretrained(tmp_path / "base")
    words.save_pretrained(tmp_path / "base")
    study = study_of(tmp_path / "base")
    with pytest.raises(SystemExit) as ended:
        run_stage(check_job(study.model_copy(update={"arms": {"sft": study.arms["sft"]}}), unlike_data), tmp_path / "c")
    assert ended.value.code == 2
    assert "is a qwen2 model and takes no images" in json.loads((tmp_path / "c" / "error.json").read_text())["message"]
