import hashlib
import io
import json
import os
import shutil
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import stage_entries
from PIL import Image
from rich.console import Console
from stage_runs import history, job, run, statuses, use, wait_for

from flows.study import set_aliases
from holdfast.config.images import Folder, Hub, World
from holdfast.config.jobs import MakeData
from holdfast.config.prior import Prior
from holdfast.config.study import Compute
from holdfast.config.targets import Jigsaw
from holdfast.data.shards import read_questions
from holdfast.errors import UserError
from holdfast.journal import read_lines
from tasks import progress, recording, slots, stage, worker
from tasks.stage import Context, StageRun, find_stage, run_data_stage, trained_model
from tasks.tracking import open_store


def test_a_stage_is_recorded_with_every_step_once(context):
    done = run(context)
    assert not done.found
    assert done.seconds == 1.5
    steps = history(context, done.run_id)
    assert steps["train/loss"] == [0, 1, 2, 3, 4, 5, 6]
    assert steps["target/jigsaw/score"] == [0, 3, 6]
    recorded = open_store(context.root).client.get_run(done.run_id)
    assert recorded.info.status == "FINISHED"
    assert recorded.data.metrics["peak_memory_mb"] == 10.0
    assert recorded.data.params["stage.method"] == "sft"
    assert recorded.data.tags["mlflow.parentRunId"] == context.study_run
    assert recorded.data.tags["holdfast.kind"] == "train"
    assert recorded.data.tags["holdfast.data"] == context.data_version
    assert recorded.inputs.dataset_inputs[0].dataset.digest == context.data_version
    names = {path.relative_to(done.path).as_posix() for path in done.path.rglob("*") if path.is_file()}
    assert {"job.json", "config.json", "metrics.jsonl", "result.json", "log.txt"} <= names
    assert not list(worker.work_directory(context.root).glob("*.partial"))


def test_a_finished_stage_is_found_again_and_does_not_run(context):
    first = run(context)
    second = run(context)
    assert second.found
    assert second.run_id == first.run_id
    assert find_stage(job(context.root), context) == find_stage(job(context.root, threads=2), context)
    assert find_stage(job(context.root, seed=1), context) is None


def test_a_stage_with_one_changed_byte_runs_again(context):
    first = run(context)
    weights = first.path / "checkpoints/step-000006/model.safetensors"
    weights.write_bytes(b"\x07" + weights.read_bytes()[1:])
    assert find_stage(job(context.root), context) is None
    second = run(context)
    assert not second.found
    assert second.run_id != first.run_id


@pytest.mark.parametrize(
    "name", [pytest.param("checkpoints/step-000003/model.safetensors", marks=pytest.mark.slow), "result.json"]
)
def test_a_stage_with_a_missing_file_runs_again(context, name):
    (run(context).path / name).unlink()
    assert not run(context).found


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", *(pytest.param(name, marks=pytest.mark.slow) for name in ("job.json", "result.json"))]
)
def test_a_stage_whose_record_changed_runs_again(context, name):
    record = run(context).path / name
    # A digit, so that every reader still takes it.
    record.write_text(record.read_text().replace("0", "1", 1))
    assert not run(context).found


def test_the_metrics_of_a_checkpoint_are_linked_and_searchable(context):
    done = run(context)
    client = open_store(context.root).client
    experiment = client.get_run(done.run_id).info.experiment_id
    models = client.search_logged_models([experiment], "metrics.`target/jigsaw/score` > 0.4")
    assert sorted(m.tags["holdfast.step"] for m in models) == ["3", "6"]
    best = max(models, key=lambda m: int(m.tags["holdfast.step"]))
    assert best.status == "READY"
    assert best.tags["holdfast.digest"] == trained_model(done).digest
    assert {(m.key, m.step, m.dataset_digest) for m in best.metrics} == {
        ("target/jigsaw/score", 6, context.data_version)
    }


def test_an_interrupted_stage_continues_in_its_run_without_a_duplicate(context, monkeypatch):
    use(monkeypatch, "killed_once")
    with pytest.raises(worker.StageKilled):
        run(context)
    assert statuses(context) == ["KILLED"]
    done = run(context)
    assert statuses(context) == ["FINISHED"]
    steps = history(context, done.run_id)
    assert steps["train/loss"] == [0, 1, 2, 3, 4, 5, 6]
    client = open_store(context.root).client
    experiment = client.get_run(done.run_id).info.experiment_id
    assert len(client.search_logged_models([experiment])) == 3


def test_a_stage_killed_between_complete_and_recorded_is_only_recorded(context, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "upload_artifacts", killed)
        with pytest.raises(KeyboardInterrupt):
            run(context)
    use(monkeypatch, "crash")
    done = run(context)
    assert history(context, done.run_id)["train/loss"] == [0, 1, 2, 3, 4, 5, 6]
    assert statuses(context) == ["FINISHED"]


@pytest.mark.parametrize(
    "broken",
    [
        b'{"step": 1, "metr',
        pytest.param(b'{"step": 1, "metrics": {"train/loss": 7.0}}\n', marks=pytest.mark.slow),
        pytest.param(b"\xff\n", marks=pytest.mark.slow),
    ],
)
def test_a_journal_that_was_broken_while_nothing_ran_is_neither_read_nor_recorded(context, monkeypatch, broken):
    use(monkeypatch, "killed_once")
    with pytest.raises(worker.StageKilled):
        run(context)
    [journal] = worker.work_directory(context.root).glob("*.partial/metrics.jsonl")
    journal.write_bytes(broken + journal.read_bytes())
    done = run(context)
    client = open_store(context.root).client
    logged = client.get_metric_history(done.run_id, "train/loss")
    assert [(m.step, m.value) for m in logged] == [(step, 1 / (step + 1)) for step in range(7)]
    assert [line["step"] for line in read_lines(done.path / "metrics.jsonl") if "train/loss" in line.get("metrics", ())]


def test_a_complete_stage_that_was_broken_before_it_was_recorded_runs_again(context, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "upload_artifacts", killed)
        with pytest.raises(KeyboardInterrupt):
            run(context)
    [weights] = worker.work_directory(context.root).glob("*/checkpoints/step-000006/model.safetensors")
    weights.write_bytes(b"\x07" + weights.read_bytes()[1:])
    assert trained_model(run(context)).digest == hashlib.sha256(bytes([6]) * 100).hexdigest()


def test_a_fault_of_the_user_passes_through(context, monkeypatch):
    use(monkeypatch, "user_error")
    with pytest.raises(UserError, match=r"images.path: /nowhere is missing"):
        run(context)
    assert statuses(context) == ["FAILED"]


def test_a_message_that_a_full_disk_could_not_take_is_told_as_the_full_disk(context, monkeypatch):
    use(monkeypatch, "unwritten_error")
    with pytest.raises(UserError, match=r"cannot be written \(no space left on device\)"):
        run(context)


def test_a_crash_carries_the_last_lines_of_its_log(context, monkeypatch):
    use(monkeypatch, "crash")
    with pytest.raises(worker.StageFailed, match="the optimizer tripped"):
        run(context)
    failed = open_store(context.root).search("tags.`holdfast.arm` = 'answers'")[0]
    assert failed.info.status == "FAILED"
    assert "the optimizer tripped" in failed.data.tags["holdfast.error"]


def spans(context: Context, threads: int) -> list[tuple[float, float]]:
    with ThreadPoolExecutor(4) as pool:
        results = [r.result for r in pool.map(lambda seed: run(context, seed, threads), range(4))]
    return sorted((r.notes["began"], r.notes["ended"]) for r in results)


def overlap(times: list[tuple[float, float]]) -> int:
    """Most stages at one moment."""
    return max(sum(began <= moment < ended for began, ended in times) for moment, _ in times)


def test_no_more_stages_run_at_a_time_than_asked_for(context, monkeypatch):
    use(monkeypatch, "span")
    limited = context.study.model_copy(update={"compute": Compute(parallel=2)})
    assert overlap(spans(context.model_copy(update={"study": limited}), threads=1)) == 2


@pytest.mark.slow
def test_stages_that_need_all_cores_run_one_by_one(context, monkeypatch):
    use(monkeypatch, "span")
    monkeypatch.setattr(slots, "cores", lambda: 3)
    assert overlap(spans(context, threads=2)) == 1


def test_stopping_ends_running_and_waiting_stages(context, monkeypatch):
    use(monkeypatch, "slow_steps")
    monkeypatch.setattr(slots, "cores", lambda: 1)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(run, context, seed) for seed in range(2)]
        wait_for(lambda: statuses(context) == ["RUNNING"])
        wait_for(lambda: any(process.pid for process in worker._running))
        children = [process.pid for process in worker._running]
        began = time.monotonic()
        worker.stop_all()
        errors = [type(future.exception()) for future in futures]
    assert errors == [slots.Stopped, slots.Stopped]
    assert time.monotonic() - began < 4
    assert not any(psutil.pid_exists(pid) for pid in children)
    assert statuses(context) == ["KILLED"]


def test_leaving_the_block_of_children_by_an_interrupt_ends_them(context, monkeypatch):
    use(monkeypatch, "slow_steps")

    def interrupted(pool: ThreadPoolExecutor) -> Future[StageRun]:
        with suppress(KeyboardInterrupt), worker.children():
            future = pool.submit(run, context)
            wait_for(lambda: worker._running)
            raise KeyboardInterrupt
        return future

    with ThreadPoolExecutor(1) as pool:
        assert isinstance(interrupted(pool).exception(), slots.Stopped)


def test_a_child_leads_its_own_group_and_computes_on_its_own_threads(context, monkeypatch):
    use(monkeypatch, "environment")
    notes = run(context).result.notes
    assert notes["group"] == notes["pid"] != os.getpid()
    assert notes["threads"] == "1"


def test_metrics_are_logged_while_the_stage_runs(context, monkeypatch):
    monkeypatch.setattr(recording, "EVERY", 0.5)
    use(monkeypatch, "slow_steps")
    thread = threading.Thread(target=run, args=(context,))
    thread.start()

    def seen() -> bool:
        runs = open_store(context.root).search("tags.`holdfast.arm` = 'answers'")
        return bool(runs) and runs[0].info.status == "RUNNING" and "train/loss" in runs[0].data.metrics

    wait_for(seen)
    thread.join()


def test_a_step_that_was_not_kept_is_refused_by_name(context):
    done = run(context)
    assert trained_model(done, 3).step == 3
    with pytest.raises(UserError, match=r"arms.answers: step 4 was not kept; choose one of 0, 3, 6"):
        trained_model(done, 4)


def test_the_data_stage_leaves_its_shards_in_the_data_folder(context, monkeypatch):
    monkeypatch.setattr(worker, "ENTRY", "holdfast.stages.process:run_job")
    target = Jigsaw(train=4, validation=2, test=2)
    made = MakeData(images=World(), target=target, prior=(Prior(benchmark="color", questions=3),))
    into = context.root / "data" / "study-12345678"
    done = run_data_stage.fn(made, context, into)
    assert sorted(path.name for path in into.iterdir()) == [
        "prior-color.parquet",
        "prior_validation-color.parquet",
        "target-test.parquet",
        "target-train.parquet",
        "target-validation.parquet",
    ]
    assert len(read_questions(into / "target-train.parquet")) == 4
    assert not list(done.path.glob("*.parquet"))
    assert find_stage(made, context).run_id == done.run_id


def test_the_commit_that_was_read_from_the_hub_is_kept_and_one_that_nobody_asked_for_is_told(context, monkeypatch):
    monkeypatch.setattr(worker, "ENTRY", "stage_entries:reads_from_the_hub")
    written = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=written, width=200))
    photos = context.root / "photos"
    photos.mkdir()
    for number in range(6):
        Image.new("RGB", (64, 64), (40 * number, 9, 9)).save(photos / f"{number}.png")
    images = Hub(source="hub", name=str(photos))
    made = MakeData(images=images, target=Jigsaw(train=2, validation=2, test=2), prior=())
    done = run_data_stage.fn(made, context, context.root / "data" / "study-12345678")
    name = f"{photos}@{stage_entries.COMMIT}"
    assert done.result.notes["commits"] == [name]
    assert open_store(context.root).run(done.run_id).data.tags["holdfast.commits"] == name
    assert f"{name} is what the Hub has today; name that commit as its `revision`." in written.getvalue()


def test_what_a_data_stage_left_out_is_told_and_kept(context, monkeypatch):
    monkeypatch.setattr(worker, "ENTRY", "holdfast.stages.process:run_job")
    written = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=written, width=120))
    photos = context.root / "photos [1]"
    for name, color in [("a", "red"), ("b", "red"), ("c", "blue"), ("d", "green"), (".e", "white")]:
        photos.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), color).save(photos / f"{name}.png")
    (photos / "note [x].jpg").write_text("no image")
    images = Folder(source="folder", path=photos)
    made = MakeData(images=images, target=Jigsaw(train=4, validation=2, test=2), prior=())
    done = run_data_stage.fn(made, context, context.root / "data" / "study-12345678")
    told = done.result.notes["told"]
    assert [sentence.partition(" (")[0].partition(" in ")[0] for sentence in told] == [
        "1 image(s) cannot be read and are left out: note [x].jpg.",
        "1 hidden file(s) and folder(s)",
        "1 image(s) show what another one shows and are left out: b.png",
    ]
    assert all(f"data: {sentence}\n" in written.getvalue() for sentence in told)


@pytest.mark.parametrize("lost", [False, True])
def test_a_data_stage_killed_while_it_moved_its_shards_loses_none(context, monkeypatch, lost):
    monkeypatch.setattr(worker, "ENTRY", "holdfast.stages.process:run_job")
    made = MakeData(images=World(), target=Jigsaw(train=4, validation=2, test=2), prior=(Prior(benchmark="color"),))
    into = context.root / "data" / "study-12345678"
    move = Path.replace

    def killed_at_the_third(path: Path, target: Path) -> Path:
        if path.name == "target-train.parquet":
            raise KeyboardInterrupt
        return move(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            run_data_stage.fn(made, context, into)
    assert not into.exists()
    if lost:
        # As the next command does before it makes data.
        shutil.rmtree(into.with_name(f"{into.name}.partial"))
    run_data_stage.fn(made, context, into)
    assert len(list(into.iterdir())) == 5


def test_an_alias_follows_the_best_checkpoint(context):
    done = run(context)
    store = open_store(context.root)
    for step in (3, 6, 6):
        store.models.register("study", "best-skill", done.run_id, step)
    version = store.client.get_model_version_by_alias("study", "best-skill")
    assert version.tags["holdfast.step"] == "6"
    assert version.run_id == done.run_id
    assert len(store.client.search_model_versions("name = 'study'")) == 2


def test_an_alias_means_the_step_of_its_own_stage(context):
    done = run(context)
    winner = {"run_id": done.run_id, "step": 106, "stage_step": 6}
    summary = context.root / "summary.json"
    summary.write_text(json.dumps({"aliases": {"best-skill": winner}}))
    assert set_aliases(summary, context) == {}
    version = open_store(context.root).client.get_model_version_by_alias("study", "best-skill")
    assert version.tags["holdfast.step"] == "6"


def test_a_continued_stage_keeps_its_parameters(context, monkeypatch):
    use(monkeypatch, "killed_once")
    with pytest.raises(worker.StageKilled):
        run(context, threads=1)
    done = run(context, threads=2)
    assert open_store(context.root).client.get_run(done.run_id).data.params["threads"] == "1"


def test_two_flows_that_need_the_same_stage_at_once_run_it_once(context, monkeypatch):
    use(monkeypatch, "slow_steps")
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: run(context), range(2))
    assert first.run_id == second.run_id
    assert sorted([first.found, second.found]) == [False, True]


def test_shards_reach_a_data_folder_on_another_file_system(context, monkeypatch):
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == context.root.stat().st_dev:
        pytest.skip("this machine has no second file system at /dev/shm")
    monkeypatch.setattr(worker, "ENTRY", "holdfast.stages.process:run_job")
    made = MakeData(images=World(), target=Jigsaw(train=4, validation=2, test=2), prior=(Prior(benchmark="color"),))
    with tempfile.TemporaryDirectory(dir=shm) as data:
        into = Path(data) / "study-12345678"
        run_data_stage.fn(made, context, into)
        assert len(read_questions(into / "target-train.parquet")) == 4
        assert len(list(into.iterdir())) == 5
        assert [path.name for path in into.parent.iterdir()] == [into.name]
