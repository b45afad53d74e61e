"""What is left when the whole study is killed, and what Prefect does when only a child is."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from pathlib import Path

import psutil
import pytest
from prefect import flow
from prefect.testing.utilities import prefect_test_harness
from stage_runs import history, job, run, statuses, use, wait_for

from holdfast.config.results import Checkpoint
from holdfast.config.study import Study
from holdfast.errors import UserError
from tasks import worker
from tasks.parent_runs import study_run
from tasks.run_owner import HEARTBEAT_TAG, HEARTBEAT_TIMEOUT
from tasks.stage import Attempt, Context, Position, StageRun, run_stage
from tasks.stage_cache import stage_key
from tasks.tracking import Store, open_store

HERE = Path(__file__).parent
STUDY_IN_ITS_OWN_PROCESS = """
import sys
from pathlib import Path
from holdfast.config.study import Study
from tasks import slots, worker
from tasks.stage_cache import stage_key
from tasks.stage import Attempt, Context, Position
from tasks.parent_runs import study_run
from stage_runs import job

if __name__ == "__main__":
    root = Path(sys.argv[1])
    worker.PRELOAD, worker.ENTRY, slots.LOCKS = [], "stage_entries:slow_steps", root / "slots"
    study = Study.model_validate_json(sys.argv[2])
    with study_run(root, study) as run_id:
        Attempt(job(root), Context(root=root, study=study, study_run=run_id), Position("answers", 1)).run()
"""


@pytest.fixture
def killed_study(root: Path, study: Study) -> list[int]:
    """A study that was killed in the middle of a stage; the ids of its processes."""
    script = root / "killed_study.py"
    script.write_text(STUDY_IN_ITS_OWN_PROCESS)
    path = os.pathsep.join([str(place) for place in (HERE.parent / "support", HERE.parents[1])])
    command = [sys.executable, str(script), str(root), study.model_dump_json()]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})
    journals = root / "mlruns" / "work"
    wait_for(lambda: any('"step": 4' in file.read_text() for file in journals.glob("*.partial/metrics.jsonl")))
    family = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    process.kill()
    process.wait()
    return family


def test_a_killed_study_takes_its_stages_along_and_the_next_one_continues(killed_study, root, study):
    assert len(killed_study) >= 2
    wait_for(lambda: not any(map(_lives, killed_study)), 30.0)
    store = open_store(root)
    orphans = store.search("attributes.status = 'RUNNING'")
    assert len(orphans) == 2

    with study_run(root, study) as run_id:
        assert {store.client.get_run(orphan.info.run_id).info.status for orphan in orphans} == {"KILLED"}
        context = Context(root=root, study=study, study_run=run_id)
        done = Attempt(job(root), context, Position("answers", 1)).run()
    assert done.run_id in {orphan.info.run_id for orphan in orphans}
    assert history(context, done.run_id)["train/loss"] == [0, 1, 2, 3, 4, 5, 6]
    steps = [
        line["step"] for line in map(json.loads, (done.path / "metrics.jsonl").open()) if "train/loss" in str(line)
    ]
    assert steps == [0, 1, 2, 3, 4, 5, 6]
    assert store.search("attributes.status = 'RUNNING'") == []


def test_runs_of_a_living_process_are_not_reaped(context):
    assert open_store(context.root).reap() == []
    assert open_store(context.root).client.get_run(context.study_run).info.status == "RUNNING"


def test_a_process_that_took_over_the_id_of_a_dead_one_does_not_keep_its_run(context):
    open_store(context.root).tag(context.study_run, {"holdfast.started": "1"})
    assert open_store(context.root).reap() == [context.study_run]


@pytest.mark.parametrize(("silent", "reaped"), [(HEARTBEAT_TIMEOUT + 5, True), (HEARTBEAT_TIMEOUT - 60, False)])
def test_a_run_of_another_machine_is_reaped_once_it_says_nothing_for_long(context, silent, reaped):
    elsewhere = {"holdfast.host": "gone", "holdfast.machine": "gone 1", HEARTBEAT_TAG: str(round(time.time() - silent))}
    store = open_store(context.root)
    store.tag(context.study_run, elsewhere)
    assert store.reap() == [context.study_run] * reaped
    assert store.client.get_run(context.study_run).info.status == ("KILLED" if reaped else "RUNNING")


def test_a_living_process_keeps_its_runs_when_the_clock_is_set(context, monkeypatch):
    # The kernel counts the time of boot back from the clock.
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: 1000.0)
    assert open_store(context.root).reap() == []


@pytest.mark.parametrize("before", ["log_outputs", "finalize_logged_model"])
def test_a_model_that_a_dead_process_began_is_finished_by_the_next_one(context, monkeypatch, before):
    store, kept = open_store(context.root), Checkpoint(step=3, path="checkpoints/step-000003", digest="d")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.client, before, killed)
        with pytest.raises(KeyboardInterrupt):
            store.models.keep(context.study_run, kept)
    ids = {store.models.keep(context.study_run, kept) for _ in range(2)}
    run = store.client.get_run(context.study_run)
    assert [output.model_id for output in run.outputs.model_outputs] == list(ids)
    assert store.client.get_logged_model(*ids).status == "READY"


def test_two_processes_that_begin_an_experiment_at_once_share_it(root, monkeypatch):
    first, second = Store(root), Store(root)
    find = second.client.get_experiment_by_name
    answers = iter([lambda name: None, find])
    monkeypatch.setattr(second.client, "get_experiment_by_name", lambda name: next(answers)(name))
    assert first.experiment("shared") == second.experiment("shared")


def test_a_run_that_another_machine_took_for_dead_lives_again(context):
    store = open_store(context.root)
    store.client.set_terminated(context.study_run, "KILLED")
    store._renew([context.study_run])
    assert store.client.get_run(context.study_run).info.status == "RUNNING"


def test_a_run_that_goes_on_says_that_it_lives(root, study, monkeypatch):
    monkeypatch.setattr("tasks.run_owner.HEARTBEAT", 0.1)
    with study_run(root, study) as run_id:
        store = open_store(root)
        store.tag(run_id, {HEARTBEAT_TAG: "1"})
        wait_for(lambda: store.client.get_run(run_id).data.tags[HEARTBEAT_TAG] != "1")


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_study_ends_as_its_flow_does(root, study, error, status):
    with pytest.raises(error), study_run(root, study) as run_id:
        raise error("no more")
    ended = open_store(root).client.get_run(run_id)
    assert ended.info.status == status
    assert ended.data.tags["holdfast.error"] == "no more"


@pytest.fixture(scope="module")
def prefect_server():
    with prefect_test_harness(server_startup_timeout=120):
        yield


def test_prefect_retries_a_killed_stage(prefect_server, context, monkeypatch):
    @flow
    def one_stage() -> StageRun:
        return run_stage.submit(job(context.root), context, Position("answers", 1)).result()

    use(monkeypatch, "killed_once")
    done = one_stage()
    assert history(context, done.run_id)["train/loss"] == [0, 1, 2, 3, 4, 5, 6]
    assert statuses(context) == ["FINISHED"]


def test_a_forkserver_that_is_killed_as_it_starts_a_stage_is_worth_another_try(context, monkeypatch):
    monkeypatch.setattr(worker, "PRELOAD", ["stage_entries"])
    worker.preload()
    pid = forkserver._forkserver._forkserver_pid
    # It has heard of the stage, and is gone before it has started it.
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(run, context)
        wait_for(lambda: statuses(context) == ["RUNNING"])
        time.sleep(0.5)
        os.kill(pid, signal.SIGKILL)
        assert isinstance(first.exception(), worker.StageKilled)
    assert statuses(context) == ["KILLED"]
    assert run(context).result.seconds == 1.5


def test_prefect_does_not_retry_a_fault_of_the_user(prefect_server, context, monkeypatch):
    @flow
    def one_stage() -> StageRun:
        return run_stage.submit(job(context.root), context, Position("answers", 1)).result()

    use(monkeypatch, "user_error")
    with pytest.raises(UserError):
        one_stage()
    log = worker.work_directory(context.root) / f"{stage_key(job(context.root))}.partial" / "log.txt"
    assert log.read_text().count("asked") == 1


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
