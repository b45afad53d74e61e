"""Every architecture goes through a short study: check, base, both methods, an adapter, influence of each of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import prior_sets
import pytest
import torch
from architectures import VISION_LANGUAGE, made
from PIL import Image

from flows.evaluation import questions_of
from flows.jobs import Start, check_job, trace_job, train_job
from holdfast.benchmarks.dataset import make_data
from holdfast.config.jobs import AnyJob, MakeData
from holdfast.config.refs import DataRef, ModelRef
from holdfast.config.results import Result
from holdfast.config.study import Study
from holdfast.data.shards import png, read_questions, write_questions
from holdfast.errors import UserError
from holdfast.models import prompt_sharing
from holdfast.models.base_ref import reference
from holdfast.models.load import save_checkpoint
from holdfast.models.text_base import require_sight
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


def study_of(base: Path, **changes: Any) -> Study:
    both = {} if changes else {"freeze": ["vision", "projector"]}
    reinforced = {**both, "method": "grpo", "rewards": {"own": {"function": "own:letters"}}, "trainer": DRAWN}
    taught = {**both, "method": "sft", "source": "teacher", "trainer": STEPS}
    arms = {"sft": [taught], "grpo": [reinforced], "lora": [{**taught, "lora": LORA}, {**reinforced, "lora": LORA}]}
    prior = [{"benchmark": name} for name in ("color", "count")]
    given = {"name": "short", "arms": arms, "model": {"path": str(base)}, "prior": prior, **SETTINGS}
    return Study(**{**given, **changes})


def text_study(base: Path, place: Path) -> Study:
    """Arithmetic that is drawn, and public benchmarks from local copies, of a model of text."""
    priors = [{"benchmark": name, "data": str(prior_sets.copy(place / name, name))} for name in ("gsm8k", "arc")]
    prior = [{**one, "questions": 4, "validation": 4, "shots": 0} for one in priors]
    return study_of(
        base, prior=prior, target={"benchmark": "arithmetic", "train": 12, "validation": 4, "test": 4, "difficulty": 0}
    )


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
    end_with_finite_numbers(runs, study_of(tmp_path / "base"), unlike_data, name)


@pytest.mark.slow
def test_so_does_one_of_a_model_of_text(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rollouts share their prompts, in generation, under the weights as they were, and in the loss."""
    shared = []
    share = prompt_sharing._shared
    monkeypatch.setattr(
        prompt_sharing, "_shared", lambda *given: shared.append(torch.is_grad_enabled()) or share(*given)
    )
    model, processor = made("qwen2_5_text")
    save_checkpoint(model, processor, tmp_path / "base")
    study = text_study(tmp_path / "base", tmp_path)
    (tmp_path / "data").mkdir()
    make_data(MakeData(images=study.images, target=study.target, prior=study.prior), tmp_path / "data")
    end_with_finite_numbers(runs, study, DataRef(path=tmp_path / "data", digest="text"), "qwen2_5_text")
    assert set(shared) == {False, True}


def end_with_finite_numbers(runs: Runs, study: Study, data: DataRef, name: str) -> None:
    runs(check_job(study, data), "check")
    base = ModelRef(path=study.model.path, digest=name)
    questions = questions_of(study, data, base)
    measured = runs(questions.job([base], tuple(questions.parts())), "base")
    start = Start(data=data, base=base, references=file_of(measured, "references.parquet"))
    questions = questions_of(study, data, base, start.references)
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


def test_what_a_model_of_text_cannot_see_is_refused_before_data_is_made_and_by_the_check(
    run_stage: Callable[..., Path], tiny_data: DataRef, tmp_path: Path
) -> None:
    model, processor = made("qwen2_5_text")
    save_checkpoint(model, processor, tmp_path / "base")
    study = study_of(tmp_path / "base", arms={"sft": [{"method": "sft", "source": "teacher", "trainer": STEPS}]})
    base = reference(study.model)
    said = "shows images, and model.path is a qwen2 model, which reads text alone; ask in text, as arithmetic"
    with pytest.raises(UserError, match=f"^target: jigsaw {said}"):
        require_sight(study, base)
    text = {"benchmark": "arithmetic"}
    require_sight(study_of(tmp_path / "base", target=text, prior=["gsm8k", "arc"]), base)
    for prior in ({"benchmark": "color"}, {"benchmark": "pope", "name": "own", "data": str(tmp_path)}):
        with pytest.raises(UserError, match=f"^prior: {prior.get('name', 'color')} {said}"):
            require_sight(study_of(tmp_path / "base", target=text, prior=[prior]), base)
    with pytest.raises(SystemExit) as ended:
        run_stage(check_job(study, tiny_data), tmp_path / "c")
    assert ended.value.code == 2
    assert json.loads((tmp_path / "c" / "error.json").read_text())["message"].startswith(f"target: jigsaw {said}")
