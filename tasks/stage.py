"""The Prefect task that runs a stage: found again, or run in a process of its own, retried, limited and recorded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run
from prefect.states import State
from pydantic import BaseModel, Field, TypeAdapter

from holdfast.config.base import Config
from holdfast.config.jobs import STEPS, Account, AnyJob, Blend, Evaluate, MakeData, Train
from holdfast.config.refs import FileRef, ModelRef, directory_digest, file_digest
from holdfast.config.results import Result, RunRecord
from holdfast.config.study import Study
from holdfast.errors import UserError, writing
from tasks import progress, ray_nodes, slots, tracking, worker
from tasks.atomic_move import move
from tasks.evaluations import MODELS, model_tag
from tasks.recording import CONFIG, STAGE_FILES, Recorder, flat_params, upload_artifacts
from tasks.stage_cache import RESULT, CachedStage, code_digest, find_cached, intact_result, recorded_result, stage_key
from tasks.tracking import WHOLE_ID, Store, open_store

RETRIES = 2
# Samples of a model are a new version of the data.
KINDS = {"sample": "data", "select": "data"}


class Context(Config):
    """What all stages of one flow run share."""

    root: Path
    """The repository: mlruns/ and data/ lie below it."""
    study: Study
    study_run: str
    """MLflow id of the parent run (`studies.study_run`)."""
    flow_run: str = ""
    """Prefect's id of the flow run."""
    data_version: str = ""
    """md5 in data.dvc; empty before the data is there."""
    ends: float | None = None
    """By `time.monotonic`: when no training may run any more."""


Admit = Callable[[], None]
"""Asked once there is room for a stage; raises where it may not run."""


class Place(NamedTuple):
    """Where there is room for a stage."""

    run: Callable[[Callable[[list[dict[str, Any]]], None]], None]
    """Runs its process and hands on the lines that it tells."""
    ray_node: str = ""
    """Ray's id of the node; empty on this machine."""


class Position(NamedTuple):
    """Which stage of which replicate of an arm a job is for; nothing for what belongs to no arm."""

    arm: str | None = None
    replicate: int = 0
    """From 1."""
    stage: int = 0


COMMON = Position()


class StageRun(Config):
    """A finished stage."""

    kind: Literal[
        "data",
        "base",
        "check",
        "evaluate",
        "sample",
        "select",
        "train",
        "interpolate",
        "influence",
        "ledger",
        "predictors",
        "compare",
        "contrast",
    ]
    arm: str | None = None
    stage: int = 0
    replicate: int = 0
    """Of an arm, from 1; 0 for what belongs to no arm."""
    run_id: str
    path: Path
    """Directory with result.json, metrics.jsonl and files. Read only."""
    digest: str
    """The stage key."""
    found: bool
    """It was there already: nothing ran."""
    seconds: float
    """Wall time inside the stage's process, when it ran."""
    result: Result


class Attempt(NamedTuple):
    """One stage of one flow run, on its way from a job to a recorded run."""

    job: AnyJob
    context: Context
    position: Position = COMMON
    admit: Admit | None = None

    def run(self, into: Path | None = None) -> StageRun:
        """Find it or run it. With `into`, always run it and move its shards there."""
        store, key = open_store(self.context.root), stage_key(self.job)
        out = worker.work_directory(self.context.root) / key
        with slots.file_lock(out.parent / "locks" / key, worker.stopping):
            found = find_cached(store, key) if into is None else None
            if found is None:
                if out.exists() and not left_whole(out, into):
                    shutil.rmtree(out)
                done = self._in_turn(store, out, into)
                _set_steps_aside(out)
            shutil.rmtree(out, ignore_errors=True)
            if isinstance(self.job, Account) and self.job.recorded:
                shutil.rmtree(out.with_name(self.job.recorded), ignore_errors=True)
        if found is not None:
            progress.found(self.label)
        return self.stage_run(key, found or done, found is not None)

    @property
    def name(self) -> str:
        arm, replicate, stage = self.position
        words = [
            arm or self.job.verb,
            f"r{replicate}" if replicate > 1 else "",
            str(stage) if stage else "",
            self.job.verb if arm else "",
        ]
        return " ".join(word for word in words if word and word != "train")

    @property
    def label(self) -> str:
        """Its name where the stages of several studies run."""
        study = self.context.study
        return f"{study.name.removeprefix(f'{study.sweep}-')} {self.name}" if study.sweep else self.name

    def _in_turn(self, store: Store, out: Path, into: Path | None) -> CachedStage:
        """Run it as soon as there is room."""
        _require_checkpoints(self.job)
        with ExitStack() as room:
            with progress.waiting(self.label):
                compute = self.context.study.compute
                # Where time is short, what has been trained is measured before anything else is trained; and where
                # disks are, steps that wait for a ledger make room before others are kept.
                first = isinstance(self.job, Account) or (self.context.ends is not None and self.admit is None)
                if ray_nodes.is_sent(self.job, compute):
                    stage = room.enter_context(ray_nodes.sent(self.job, out, compute, first))
                    place = Place(stage.run, stage.node)
                else:
                    gpu = room.enter_context(slots.slot(self.job, compute.parallel, worker.stopping, first))
                    place = Place(partial(worker.run, self.job, out, gpu=gpu))
            if self.admit is not None:
                self.admit()
            return self._run(store, out, place, into)

    def _run(self, store: Store, out: Path, place: Place, into: Path | None) -> CachedStage:
        data = getattr(self.job, "data", None)
        version = self.context.data_version
        run_id, new = self._open(store, out)
        with tracking.ending(store, run_id, (slots.Stopped, worker.StageKilled)), progress.running(self.label) as show:
            if data is not None and version:
                store.dataset(run_id, data, version)
            if place.ray_node:
                store.tag(run_id, {"holdfast.ray_node": place.ray_node})
            about = (data.path.name, version) if data is not None and version else None
            with Recorder(store, run_id, about, new) as recorder:

                def on_lines(lines: list[dict[str, Any]]) -> None:
                    recorder.log_lines(lines)
                    show(lines)

                place.run(on_lines)
                with writing(out):
                    (out / CONFIG).write_text(self._config())
                result = Result.model_validate_json((out / "result.json").read_text())
                recorder.log_totals(result)
            progress.warn_all(self.label, result.notes.get("told", []))
            if commits := result.notes.get("commits"):
                store.tag(run_id, {"holdfast.commits": " ".join(commits)})
            if into is None:
                path = upload_artifacts(store, run_id, out, result, data)
            else:
                path = _move_shards(store, run_id, out, into)
            store.tag(run_id, {RESULT: file_digest(out / "result.json")})
        return CachedStage(run_id, path, result)

    def _config(self) -> str:
        return self.context.study.model_dump_json(indent=1)

    def _open(self, store: Store, out: Path) -> tuple[str, bool]:
        """A new run, or the run of the attempt that was interrupted and left its directory; and whether it is new."""
        tags = self._tags(out.name)
        left = out.exists() or out.with_name(f"{out.name}.partial").exists()
        interrupted = [run for run in store.with_key(out.name) if run.info.status in ("KILLED", "FAILED")]
        if left and interrupted:
            run_id = interrupted[0].info.run_id
            store.reopen(run_id, tags)
            return run_id, False
        run_id = store.begin(self.context.study.experiment, self.name, tags)
        store.params(run_id, flat_params(self.job.model_dump(mode="json")))
        store.artifacts.text(run_id, self._config(), CONFIG)
        return run_id, True

    def _tags(self, key: str) -> dict[str, str]:
        return {
            "holdfast.study": self.context.study.name,
            "holdfast.kind": KINDS.get(self.job.verb, self.job.verb),
            "holdfast.arm": self.position.arm or "",
            "holdfast.stage": str(self.position.stage),
            "holdfast.replicate": str(self.position.replicate or ""),
            "holdfast.stage_key": key,
            "holdfast.data": self.context.data_version,
            "holdfast.code": code_digest()[:12],
            "prefect.flow_run_id": self.context.flow_run,
            "mlflow.parentRunId": self.context.study_run,
            **({MODELS: model_tag(self.job.models)} if isinstance(self.job, Evaluate) else {}),
        }

    def stage_run(self, key: str, done: CachedStage, found: bool) -> StageRun:
        return StageRun(
            kind=self.job.verb,
            **self.position._asdict(),
            run_id=done.run_id,
            path=done.path,
            digest=key,
            found=found,
            seconds=done.result.seconds,
            result=done.result,
        )


def steps_name(key: str) -> str:
    """Of the directory beside stages at work in which the steps of a training, by its key, wait for a ledger."""
    return f"{key}.{STEPS}"


def _set_steps_aside(out: Path) -> None:
    """Keep what a training left for its ledger, when all else of its directory goes."""
    if (out / STEPS).is_dir():
        waiting = out.with_name(steps_name(out.name))
        shutil.rmtree(waiting, ignore_errors=True)
        (out / STEPS).rename(waiting)


def _require_checkpoints(content: Any) -> None:
    """Refuse a job about a checkpoint that is not there any more."""
    if isinstance(content, ModelRef) and Path(content.path).is_absolute() and not Path(content.path).exists():
        place = Path(content.path)
        run_id = next((part for part in place.parts if len(part) == WHOLE_ID), "")
        if run_id:
            remedy = f"`mlflow runs delete --run-id {run_id}` lets its stage train again"
            raise UserError(f"{place}: this checkpoint was removed by `holdfast gc`; {remedy}.")
    if isinstance(content, BaseModel):
        for name in type(content).model_fields:
            _require_checkpoints(getattr(content, name))
    elif isinstance(content, tuple):
        for part in content:
            _require_checkpoints(part)


def _was_killed(_task: Any, _run: Any, state: State) -> bool:
    return isinstance(state.result(raise_on_failure=False), worker.StageKilled)


def _task_run_name() -> str:
    given = task_run.parameters
    return Attempt(given["job"], given["context"], given.get("position", COMMON)).name


stage_task = task(
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=RETRIES,
    retry_condition_fn=_was_killed,
    task_run_name=_task_run_name,
)


@stage_task
def run_stage(job: AnyJob, context: Context, position: Position = COMMON, admit: Admit | None = None) -> StageRun:
    """Find a stage's run again, or run it. Use `.submit(...)` for stages that may run at the same time."""
    return Attempt(job, context, position, admit).run()


@stage_task
def run_data_stage(job: MakeData, context: Context, into: Path) -> StageRun:
    """Run the data stage and move its shards to the new directory `into`; DVC, not MLflow, keeps them."""
    return Attempt(job, context).run(into)


def find_stage(job: AnyJob, context: Context, position: Position = COMMON) -> StageRun | None:
    """A stage that need not run again, for saying beforehand what a study will do.

    Of a data stage only the record is found: DVC answers for its shards.
    """
    key = stage_key(job)
    found = find_cached(open_store(context.root), key, with_files=not isinstance(job, MakeData))
    return None if found is None else Attempt(job, context, position).stage_run(key, found, True)


MADE: TypeAdapter[Train | Blend] = TypeAdapter(Annotated[Train | Blend, Field(discriminator="verb")])
"""The job that left checkpoints."""


def trained_model(run: StageRun, step: int | Literal["last"] = "last") -> ModelRef:
    """The model that a `base` stage built, or a checkpoint that a `train` stage kept."""
    if run.kind == "base":
        model = run.path / "model"
        return ModelRef(path=str(model), digest=directory_digest(model))
    kept = {checkpoint.step: checkpoint for checkpoint in run.result.checkpoints}
    wanted = max(kept) if step == "last" else step
    if wanted not in kept:
        steps = ", ".join(map(str, sorted(kept)))
        raise UserError(f"arms.{run.arm}: step {wanted} was not kept; choose one of {steps}, or `last`")
    checkpoint, job = kept[wanted], MADE.validate_json((run.path / "job.json").read_bytes())
    return ModelRef(
        path=str(run.path / checkpoint.path),
        digest=checkpoint.digest,
        step=checkpoint.step,
        adapter_of=job.start if isinstance(job, Train) and job.stage.lora is not None else None,
        attention=job.start.attention,
    )


def file_of(run: StageRun, name: str) -> FileRef:
    """A file that a stage made, for example drift.parquet or samples.parquet."""
    return FileRef(path=run.path / name, digest=run.result.files[name])


def run_record(run: StageRun) -> RunRecord:
    """A stage as the report reads it."""
    return RunRecord(
        kind=run.kind,
        arm=run.arm,
        replicate=run.replicate,
        stage=run.stage,
        path=str(run.path),
        digest=run.digest,
        seconds=run.seconds,
        run_id=run.run_id,
    )


def recorded_run(record: RunRecord) -> StageRun:
    """A stage that a report has read.

    Raises:
        UserError: its record is gone.
    """
    result = recorded_result(Path(record.path))
    if result is None:
        raise UserError(f"{record.path}: the record of this run is gone; run its study again to make it anew")
    return StageRun(**record.model_dump(), found=True, result=result)


def left_whole(out: Path, into: Path | None) -> bool:
    """Whether an attempt that completed a stage and was killed before it was recorded left all of it, unchanged.

    Of a data stage's shards some may have been moved already.
    """
    return intact_result(out, *([into, _partial(into)] if into is not None else [])) is not None


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _move_shards(store: Store, run_id: str, out: Path, into: Path) -> Path:
    """Shards to data/, whole or not at all; what says how they were made stays with the run."""
    partial = _partial(into)
    # An attempt that was killed here has moved some of them, or all.
    if not into.exists():
        partial.mkdir(parents=True, exist_ok=True)
        for shard in sorted(out.glob("*.parquet")):
            move(shard, partial / shard.name)
        partial.rename(into)
    return store.artifacts.upload_last(run_id, out, [name for name in STAGE_FILES if (out / name).is_file()])
