"""From a study to jobs: what makes another stage, and what does not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from flows.evaluation import questions_of
from flows.graph import Replicate, arm_stages, replicates
from flows.jobs import Start, sample_job, train_job
from holdfast.benchmarks.dataset import make_data
from holdfast.config.jobs import AnyJob, Sample, Train
from holdfast.config.methods import Rollouts
from holdfast.config.refs import DataRef, FileRef, ModelRef, directory_digest
from holdfast.config.results import Checkpoint, Result
from holdfast.config.study import Compute, Study
from tasks.data import data_job
from tasks.stage import COMMON, Position, StageRun
from tasks.stage_cache import stage_key

BASE = ModelRef(path="model", digest="m")
ARMS: dict[str, Any] = {
    "rft": [{"method": "grpo"}],
    "answers": [{"method": "sft", "source": "answers"}],
    "rollouts": [{"method": "sft", "source": {"kind": "rollouts", "arm": "rft"}}],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A study with such settings, and what its arms start from: real data, a base that is only named."""

    def make(evaluation: dict[str, Any] | None = None, prior: Iterable[str] = ("color",)) -> tuple[Study, Start]:
        study = Study(
            name="s",
            target={"train": 8, "validation": 2, "test": 2},
            prior=[{"benchmark": name, "questions": 2, "validation": 2} for name in prior],
            arms=ARMS,
            evaluation=evaluation or {},
        )
        place = tmp_path_factory.mktemp("data")
        make_data(data_job(study), place)
        data = DataRef(path=place, digest=directory_digest(place))
        return study, Start(data=data, base=BASE, references=FileRef(path=place / "references.parquet", digest="r"))

    return make


def keys(study: Study, start: Start) -> dict[str, str]:
    """Of a training with either method, and of sampling."""
    source = Rollouts(arm="rft")
    answers = train_job(study, study.arms["answers"][0], BASE, start, 0)
    return {
        "rft": stage_key(train_job(study, study.arms["rft"][0], BASE, start, 0)),
        "answers": stage_key(answers),
        "sample": stage_key(sample_job(study, source, BASE, answers)),
    }


@pytest.mark.parametrize(
    "evaluation",
    [
        {"batch_size": 7},
        {"pass_at": [1, 4]},
        {"validation": 1},
        {"drift_prompts": 2, "drift": "sampled", "temperature": 0.5},
        {"every": 0.5},
    ],
)
def test_what_is_only_asked_trains_and_samples_nothing_again(made: Any, evaluation: dict[str, Any]) -> None:
    assert keys(*made(evaluation)) == keys(*made())


def test_a_further_prior_benchmark_trains_and_samples_nothing_again(made: Any) -> None:
    assert keys(*made(prior=("color", "count"))) == keys(*made())


def test_the_limit_of_completions_decides_what_is_drawn(made: Any) -> None:
    before, now = keys(*made()), keys(*made({"max_new_tokens": 17}))
    assert before["rft"] != now["rft"]
    assert before["sample"] != now["sample"]


def test_what_is_kept_is_another_training(made: Any) -> None:
    assert keys(*made({"keep": 2}))["answers"] != keys(*made())["answers"]


def test_a_unit_is_another_where_a_model_could_answer_otherwise_and_is_the_same_in_other_batches(made: Any) -> None:
    def units(**given: Any) -> dict[str, str]:
        study, start = made(**given)
        questions = questions_of(study, start.data, BASE, start.references)
        return {part: questions.key(BASE, part) for part in questions.parts()}

    before = units()
    assert units(evaluation={"batch_size": 7}) == before
    assert before.items() < units(prior=("color", "count")).items()
    longer = units(evaluation={"max_new_tokens": 17})
    assert longer.keys() == before.keys()
    assert not set(longer.values()) & set(before.values())
    assert before.items() < units(evaluation={"pass_at": [4]}).items()


class Trained:
    """An executor whose trainings leave one checkpoint that nobody reads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.jobs: dict[tuple[Position, str], AnyJob] = {}

    def run(self, job: AnyJob, position: Position = COMMON) -> StageRun:
        self.jobs[position, job.verb] = job
        key = stage_key(job)
        out = self.root / key[:12]
        out.mkdir(exist_ok=True)
        (out / "job.json").write_text(job.model_dump_json())
        kept = (Checkpoint(step=2, path="checkpoint", digest=key),)
        result = Result(checkpoints=kept)
        return StageRun(
            **{"kind": job.verb, "run_id": key[:12], "path": out, "digest": key, "found": False, "seconds": 1.0},
            **position._asdict(),
            result=result,
        )

    def keep(self, samples: StageRun) -> FileRef:
        return FileRef(path=samples.path / "samples.parquet", digest=samples.digest)


def test_several_gpus_evaluate_and_sample_and_ask_nothing_again(made: Any) -> None:
    study, start = made({"pass_at": [4]})
    several = study.model_copy(update={"compute": Compute(gpus=4)})
    assert keys(several, start) == keys(study, start)
    one, four = (questions_of(given, start.data, BASE, start.references) for given in (study, several))
    assert [one.key(BASE, part) for part in one.parts()] == [four.key(BASE, part) for part in four.parts()]
    asked, shared = (questions.job([BASE], list(questions.parts())) for questions in (one, four))
    assert stage_key(shared) == stage_key(asked)
    answers = train_job(several, several.arms["answers"][0], BASE, start, 0)
    assert (asked.ranks, shared.ranks, sample_job(several, Rollouts(arm="rft"), BASE, answers).ranks) == (1, 4, 4)


def test_replicates_differ_in_their_training_seed_and_learn_from_their_own_rollouts(made: Any, tmp_path: Path) -> None:
    study, start = made()
    study = study.model_copy(update={"replicates": 3, "seed": 5})
    executor: Any = Trained(tmp_path)
    runs: dict[Replicate, Any] = {}
    for replicate in replicates(study):
        sampled = {arm: runs[Replicate(arm, replicate.number)] for arm in study.waits_for(replicate.arm)}
        runs[replicate] = arm_stages(study, replicate, start, sampled, executor)
    for arm in ARMS:
        trainings = [executor.jobs[Position(arm, number, 0), "train"] for number in (1, 2, 3)]
        assert all(isinstance(job, Train) for job in trainings)
        assert trainings[0].seed == 5
        assert len({job.seed for job in trainings}) == 3
        assert [run.replicate for run in (runs[Replicate(arm, number)][-1] for number in (1, 2, 3))] == [1, 2, 3]
    for number in (1, 2, 3):
        sample = executor.jobs[Position("rollouts", number, 0), "sample"]
        [rft] = runs[Replicate("rft", number)]
        assert isinstance(sample, Sample)
        assert sample.model.digest == rft.digest
        assert sample.seed == study.training_seed(number)


def key(here: Path) -> str:
    """Of a stage that is rewarded by a function of the user's own."""
    rewards = {"score": 1.0, "mine": {"function": "rewards_of_a_stage:polite"}}
    study = Study(name="s", arms={"rft": [{"method": "grpo", "rewards": rewards}]})
    (here / "target-train.parquet").write_bytes(b"questions")
    references = FileRef(path=here / "references.parquet", digest="r")
    start = Start(data=DataRef(path=here, digest="d"), base=BASE, references=references)
    return stage_key(train_job(study, study.arms["rft"][0], BASE, start, study.seed))


def test_a_changed_reward_function_is_another_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "rewards_of_a_stage.py"
    module.write_text("def polite(completions, **others): return [0.0] * len(completions)\n")
    before = key(tmp_path)
    assert key(tmp_path) == before
    module.write_text("def polite(completions, **others): return [1.0] * len(completions)\n")
    assert key(tmp_path) != before
