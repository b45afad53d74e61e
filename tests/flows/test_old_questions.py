"""Which old questions a stage of a sequence gets, and whose answers to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.graph import Replicate, arm_stages
from flows.jobs import Start
from holdfast.benchmarks.dataset import shard_names
from holdfast.config.jobs import AnyJob, Sample, Train
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.config.results import Checkpoint, Result
from holdfast.config.study import Study
from tasks.data import data_job
from tasks.stage import COMMON, Position, StageRun

SFT = {"method": "sft", "source": "answers"}


class Recording:
    """Runs nothing, and remembers what it was to run."""

    def __init__(self, root: Path) -> None:
        self.root, self.jobs = root, []

    def run(self, job: AnyJob, position: Position = COMMON) -> StageRun:
        path = self.root / str(len(self.jobs))
        path.mkdir()
        (path / "job.json").write_text(job.model_dump_json())
        self.jobs.append(job)
        kept = (Checkpoint(step=1, path="end", digest=f"end-{len(self.jobs)}"),)
        result = Result(checkpoints=kept)
        about = {"run_id": "", "path": path, "digest": str(len(self.jobs)), "found": False, "seconds": 0.0}
        return StageRun(kind=job.verb, **position._asdict(), **about, result=result)

    def keep(self, samples: StageRun) -> FileRef:
        return FileRef(path=samples.path / "samples.parquet", digest=samples.digest)


@pytest.fixture
def jobs(tmp_path: Path) -> Any:
    """The jobs of an arm of three targets."""

    def follow(*stages: dict[str, Any]) -> list[AnyJob]:
        content = {"name": "s", "targets": {"counting": {}, "jigsaw": {}, "classes": {}}, "arms": {"a": stages}}
        prior = [{"benchmark": "color", "train": 5}, {"benchmark": "count"}]
        study = Study.model_validate(content | {"prior": prior})
        for name in shard_names(data_job(study)):
            (tmp_path / name).write_text(name)
        base = ModelRef(path="base", digest="base")
        data = DataRef(path=tmp_path, digest="d")
        start = Start(data=data, base=base, references=FileRef(path=tmp_path / "r", digest="r"))
        executor: Any = Recording(tmp_path)
        arm_stages(study, Replicate("a", 1), start, {}, executor)
        return executor.jobs

    return follow


def names(files: tuple[FileRef, ...]) -> list[str]:
    return [file.path.name for file in files]


def test_replay_is_of_prior_questions_and_of_targets_that_were_learned_before(jobs: Any) -> None:
    replay = SFT | {"replay": {"share": 0.5}}
    trained = jobs(*(replay | {"target": row} for row in (1, 2, 3)))
    assert [names(job.priors) for job in trained] == [["prior_train-color.parquet"]] * 3
    counting, jigsaw = "target_train-counting.parquet", "target_train-jigsaw.parquet"
    assert [names(job.earlier) for job in trained] == [[], [counting], [counting, jigsaw]]


def test_own_answers_are_sampled_from_the_model_that_the_stage_starts_from(jobs: Any) -> None:
    own = SFT | {"replay": {"share": 0.5, "of": ["targets"], "answers": "own", "questions": 7}}
    first, asked, second = jobs(own | {"target": 1}, own | {"target": 2})
    assert isinstance(first, Train)
    assert first.replayed is None
    assert isinstance(asked, Sample)
    assert (asked.model, asked.source.prompts) == (second.start, 7)
    assert names(asked.replayed) == ["target_train-counting.parquet"]
    assert second.replayed.path.name == "samples.parquet"


def test_a_stage_an_epoch_samples_the_model_anew(jobs: Any) -> None:
    again = {"method": "sft", "source": "own", "target": 1}
    run = jobs(again, again)
    assert [job.verb for job in run] == ["sample", "train"] * 2
    assert [run[0].model.digest, run[2].model.digest] == ["base", run[3].start.digest]
    assert run[3].start.digest == "end-2"


def test_plain_stages_get_no_old_questions(jobs: Any) -> None:
    [job] = jobs(SFT | {"target": 1})
    assert (job.priors, job.earlier, job.replayed) == ((), (), None)
