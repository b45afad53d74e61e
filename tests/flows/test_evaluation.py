"""Another benchmark asks what there is only that one, and trains nothing: real evaluations in a real store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tiny_jobs import benchmarks

from flows.evaluation import REFERENCES, Questions, evaluated, metrics_by_step, units_of
from holdfast.config.jobs import Evaluate
from holdfast.config.measurement import Vllm
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.config.study import Study
from holdfast.evaluation.records import read_records
from tasks import slots
from tasks.evaluations import known_units
from tasks.parent_runs import study_run
from tasks.stage import COMMON, Attempt, Context, Position, StageRun
from tasks.tracking import open_store

STUDY = Study(
    name="asked",
    arms={"answers": [{"method": "sft", "source": "answers"}]},
    evaluation={"max_new_tokens": 8, "batch_size": 8, "drift_prompts": 2, "validation": 2, "pass_at": [2]},
    compute={"device": "cpu"},
)
POSITION = Position("answers", 2)


class Executor:
    """Finds evaluations or runs them, and remembers those that ran."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.ran: list[tuple[Evaluate, StageRun]] = []

    def run(self, job: Evaluate, position: Position = COMMON) -> StageRun:
        run = Attempt(job, self.context, position).run()
        if not run.found:
            self.ran.append((job, run))
        return run

    def known_units(self, models: Sequence[ModelRef]) -> dict[str, FileRef]:
        return known_units(open_store(self.context.root), models)


@pytest.fixture
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(slots, "LOCKS", tmp_path / "slots")
    with study_run(tmp_path, STUDY) as run_id:
        yield Executor(Context(root=tmp_path, study=STUDY, study_run=run_id))


def rows(run: StageRun) -> int:
    return sum(pq.read_metadata(run.path / name).num_rows for name in run.result.files if name.startswith("records/"))


@pytest.mark.slow
def test_a_further_benchmark_is_all_that_is_asked(
    executor: Executor, tiny_data: DataRef, tiny_model: ModelRef, schooled: ModelRef
) -> None:
    base, (target, color, count) = tiny_model, benchmarks(tiny_data)
    two = Questions(STUDY, base, (target, color))
    of_base = units_of(two, [base], COMMON, executor)
    references = of_base[0, REFERENCES]
    two = two._replace(references=references)
    before = units_of(two, [schooled], POSITION, executor)
    assert [job.models for job, _ in executor.ran] == [(base,), (schooled,)]
    flips = json.loads((executor.ran[0][1].path / "result.json").read_text())["notes"]["flips"]
    assert flips["questions"] == 6 + 5 + 2 * 2
    assert all(0 <= flips[what] <= 1 for what in ("answers", "verdicts"))

    executor.ran.clear()
    assert units_of(two, [schooled], POSITION, executor) == before
    assert executor.ran == []
    by_vllm = STUDY.model_copy(update={"evaluation": STUDY.evaluation.model_copy(update={"vllm": Vllm()})})
    assert two._replace(study=by_vllm).key(schooled, "records/color") != two.key(schooled, "records/color")

    three = two._replace(benchmarks=(target, color, count))
    now = units_of(three, [schooled], POSITION, executor)
    [(job, run)] = executor.ran
    assert [shards.name for shards in job.benchmarks] == ["count"]
    assert (job.drift, job.pass_at, job.again) == (None, None, None)
    assert rows(run) == 5 + 2
    assert {name: file for name, file in now.items() if name in before} == before

    executor.ran.clear()
    again = three._replace(references=None)
    assert units_of(again, [base], COMMON, executor).items() > of_base.items()
    [(job, run)] = executor.ran
    assert [shards.name for shards in job.benchmarks] == ["count"]
    assert rows(run) == 5 + 2

    executor.ran.clear()
    lost = before[schooled.step, "records/color"].path
    shutil.rmtree(lost.parent)
    units_of(two, [schooled], POSITION, executor)
    [(job, _)] = executor.ran
    assert [shards.name for shards in job.benchmarks] == ["jigsaw", "color"]

    base_files = evaluated(again, units_of(again, [base], COMMON, executor), COMMON)
    files = evaluated(three, units_of(three, [schooled], POSITION, executor), POSITION)
    assert {(file.kind, file.arm, file.replicate, file.step) for file in files} == {
        (kind, "answers", 2, schooled.step) for kind in ("records", "drift", "pass_at")
    }
    metrics = metrics_by_step(base_files, files, (2,))
    assert set(metrics) == {0, schooled.step}
    assert metrics[0]["forgetting/mean"] == 0
    assert metrics[schooled.step]["kl/target"] > 0
    assert 0 <= metrics[schooled.step]["target/jigsaw/pass_at_2"] <= 1
    known = [row.correct for row in read_records(of_base[0, "records/color"].path) if row.split == "test"]
    assert metrics[0]["prior/color/accuracy"] == sum(known) / len(known)
    later = [file.model_copy(update={"stage": 1}) for file in files]
    assert set(metrics_by_step(base_files, later, (2,))) == {schooled.step}
