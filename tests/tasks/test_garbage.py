"""What nobody needs any more is listed and can go; what somebody needs stays, whatever else there is."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from reports import report, with_data
from repositories import new_repository
from stage_runs import job

from flows.commands.housekeeping import gc_lines
from flows.compare import finished
from flows.influence import recorded
from holdfast.config.jobs import STEPS
from holdfast.config.methods import SFT, Answers
from holdfast.config.refs import DataRef
from holdfast.config.study import Study
from holdfast.errors import UserError
from tasks import data_version, slots, stage_cache, store_lock, worker
from tasks.parent_runs import study_run
from tasks.recorded import COMPARED
from tasks.run_links import link_reported
from tasks.stage import Attempt, Context, Position, StageRun, find_stage, trained_model
from tasks.study_export import export_study
from tasks.tracking import open_store

STUDY = Study(name="study", arms={"answers": (SFT(method="sft", source=Answers()),)})


class Clone(NamedTuple):
    root: Path
    data: DataRef

    def train(self, seed: int, study: Study = STUDY) -> StageRun:
        """A training below a run of its own, which has no report yet."""
        with study_run(self.root, study) as run_id:
            context = Context(
                root=self.root, study=study, study_run=run_id, data_version=data_version.version(self.root)
            )
            return Attempt(job(self.root, seed), context, Position("answers", 1)).run()

    def collect(self, *clones: Path, delete: bool = False) -> str:
        return "\n".join(gc_lines(self.root, clones, delete))

    def weights(self, run: StageRun) -> list[int]:
        """The steps of the checkpoints that are there."""
        return sorted(int(path.parent.name[-6:]) for path in run.path.rglob("model.safetensors"))

    def objects(self) -> set[str]:
        files = (self.root / ".dvc" / "cache" / "files").rglob("*")
        return {path.parent.name + path.name for path in files if path.is_file()}

    def versioned(self, content: bytes) -> str:
        """Another version of the data; returns the md5 of its file."""
        file = self.data.path / "target-train.parquet"
        file.unlink()
        file.write_bytes(content)
        data_version.record(self.root, [file])
        return (data_version.listing(self.root) or {})[f"{self.data.path.name}/{file.name}"]


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    root = tmp_path_factory.mktemp("blank")
    new_repository(root, {"name": "study"})
    (root / "mlruns").mkdir()
    shutil.copy(empty_store, root / "mlruns" / "mlflow.db")
    with_data(root)
    return root


@pytest.fixture
def clone(blank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(worker, "PRELOAD", [])
    monkeypatch.setattr(worker, "ENTRY", "stage_entries:steps")
    monkeypatch.setattr(slots, "LOCKS", tmp_path / "slots")
    worker.stopping.clear()
    root = tmp_path / "clone"
    shutil.copytree(blank, root)
    return Clone(root, DataRef(path=root / "data" / "study-0123abcd", digest="d"))


def test_checkpoints_that_no_report_is_made_from_go_and_those_of_reports_aliases_and_unfinished_studies_stay(
    clone: Clone,
):
    registered, old = clone.train(1), clone.train(2)
    new = clone.train(3)
    other = Study(name="other", arms=STUDY.arms)
    unreported = clone.train(4, other)
    store = open_store(clone.root)
    store.models.register("study", "best-skill", registered.run_id, 3)
    report(clone.root, STUDY, [new], clone.data)
    continued = clone.train(5)

    said = clone.collect()
    assert f"checkpoints of study answers ({old.run_id[:8]}): the latest report of study is made without it" in said
    assert "--delete removes it" in said
    for kept in (registered, new, unreported, continued):
        assert kept.run_id[:8] not in said
    runs = (registered, old, new, unreported, continued)
    assert all(clone.weights(run) == [0, 3, 6] for run in runs), "a look changes nothing"

    assert "MiB removed" in clone.collect(delete=True)
    assert not clone.weights(old)
    assert all(clone.weights(run) == [0, 3, 6] for run in (registered, new, unreported, continued))
    removed = store.run(old.run_id)
    assert removed.data.metrics["train/loss"], "what it measured stays"
    assert "made without it" in removed.data.tags["holdfast.removed"]
    assert not store.models.ids(removed)
    assert find_stage(job(clone.root, 2), Context(root=clone.root, study=STUDY, study_run="")) is None
    assert "There is nothing to remove." in clone.collect()


@pytest.mark.slow
def test_a_removal_that_was_cut_short_goes_on(clone: Clone):
    old, new = clone.train(1), clone.train(2)
    report(clone.root, STUDY, [new], clone.data)
    shutil.rmtree(old.path / "checkpoints" / "step-000003")
    clone.collect(delete=True)
    assert not clone.weights(old)
    assert clone.weights(new) == [0, 3, 6]


@pytest.mark.slow
def test_nothing_of_stages_or_data_goes_while_a_study_runs(clone: Clone):
    old, new = clone.train(1), clone.train(2)
    report(clone.root, STUDY, [new], clone.data)
    with study_run(clone.root, Study(name="running", arms=STUDY.arms)):
        said = clone.collect(delete=True)
    assert "left alone while running runs" in said
    assert clone.weights(old) == [0, 3, 6]
    assert old.run_id[:8] in clone.collect(), "and is there to go afterwards"


@pytest.mark.slow
@pytest.mark.parametrize(("kept", "steps"), [("last", [6]), (2, [3, 6]), ("best", [3]), ("all", [0, 3, 6])])
def test_a_study_keeps_the_checkpoints_that_it_says_and_is_found_without_the_others(
    kept: str | int, steps: list[int], clone: Clone
):
    study = STUDY.model_copy(update={"checkpoints": kept})
    trained = clone.train(1, study)
    if kept == "best":
        open_store(clone.root).models.register("study", "best-skill", trained.run_id, 3)
    report(clone.root, study, [trained], clone.data)
    said = clone.collect(delete=True)
    assert ("`checkpoints` of study keeps step" in said) == (kept != "all")
    assert clone.weights(trained) == steps
    context = Context(root=clone.root, study=study, study_run="")
    again = find_stage(job(clone.root, 1), context, Position("answers", 1))
    assert again == trained.model_copy(update={"found": True})
    assert "There is nothing to remove." in clone.collect()
    if kept == "last":
        gone = trained_model(trained, 3)
        assert not Path(gone.path).exists()
        with pytest.raises(UserError, match=f"mlflow runs delete --run-id {trained.run_id}"):
            Attempt(job(clone.root, 9).model_copy(update={"start": gone}), context).run()
    next(trained.path.rglob("model.safetensors")).write_bytes(b"other")
    assert find_stage(job(clone.root, 1), context) is None


def test_what_a_report_of_another_version_names_is_kept_and_said(clone: Clone):
    study = STUDY.model_copy(update={"checkpoints": "last"})
    other = study.model_copy(update={"name": "other"})
    trained = clone.train(1, study)
    report(clone.root, study, [trained], clone.data)
    theirs = report(clone.root, other, [trained], clone.data)
    store = open_store(clone.root)
    compared = store.artifacts.of(store.run(theirs)) / COMPARED
    text = compared.read_text()
    compared.write_text(text.replace('"command"', '"surprise": 1, "command"', 1))
    work = worker.work_directory(clone.root) / f"{'0' * 64}.partial"
    work.mkdir(parents=True)
    (work / "job.json").write_bytes(b'{"verb": "\xff')
    said = clone.collect(delete=True)
    assert f"All that the report of other names is kept: {theirs}: its compare.json is damaged, or written by" in said
    assert clone.weights(trained) == [0, 3, 6]
    assert "can read its job" in said
    with pytest.raises(UserError, match="written by another version of holdfast"):
        link_reported(clone.root, store, "other")
    with pytest.raises(UserError, match="written by another version of holdfast"):
        finished("other", store)
    with pytest.raises(UserError, match="written by another version of holdfast"):
        export_study("other", clone.root / "a.tar", clone.root)
    Path(job(clone.root, 1).data.path).mkdir(parents=True, exist_ok=True)
    config = trained.path / "config.json"
    config.write_text('{"surprise": 1}')
    with pytest.raises(UserError, match=r"its config\.json is damaged, or written by another version"):
        recorded(trained.run_id, clone.root)

    compared.write_text(text)
    (trained.path / stage_cache.RETIRED).write_bytes(b"\xff[")
    context = Context(root=clone.root, study=study, study_run="")
    assert find_stage(job(clone.root, 1), context, Position("answers", 1)) is not None


@contextmanager
def interrupted(clone: Clone, seed: int) -> Iterator[Path]:
    """The directory of a stage that was killed."""
    key = stage_cache.stage_key(job(clone.root, seed))
    place = worker.work_directory(clone.root) / f"{key}.partial"
    place.mkdir(parents=True)
    (place / "job.json").write_text(job(clone.root, seed).model_dump_json())
    (place / "weights").write_bytes(bytes(1000))
    yield place


@pytest.mark.slow
def test_interrupted_work_goes_only_when_no_study_can_continue_it(clone: Clone, monkeypatch: pytest.MonkeyPatch):
    clone.train(1)
    with interrupted(clone, 1) as finished, interrupted(clone, 2) as open_one, interrupted(clone, 3) as held:
        unreadable = worker.work_directory(clone.root) / f"{'0' * 64}.partial"
        unreadable.mkdir()
        other_code = worker.work_directory(clone.root) / f"{'1' * 64}.partial"
        shutil.copytree(open_one, other_code)
        shutil.copytree(other_code, held.with_name(f"{'2' * 64}.partial"))
        lock = worker.work_directory(clone.root) / "locks" / ("2" * 64)
        # Another process works there.
        code = f"import fcntl; f = open({str(lock)!r}, 'a'); fcntl.flock(f, 2); print(1, flush=True); input()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            said = clone.collect(delete=True)
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.close()
        for words in ("its stage has finished", "can read its job", "code or locked libraries have changed"):
            assert words in said
        assert [path.exists() for path in (finished, unreadable, other_code)] == [False, False, False]
        assert open_one.is_dir()
        assert held.with_name(f"{'2' * 64}.partial").is_dir()


def test_steps_that_wait_for_a_ledger_go_unless_a_study_runs(clone: Clone):
    place = worker.work_directory(clone.root) / f"{'3' * 64}.{STEPS}"
    place.mkdir(parents=True)
    (place / "step-000000.safetensors").write_bytes(b"1" * 2**20)
    with store_lock.in_use(clone.root):
        clone.collect(delete=True)
    assert place.is_dir()
    assert "1.0 MiB  steps of 333333333333: they wait for a ledger" in clone.collect(delete=True)
    assert not place.exists()


@pytest.mark.slow
def test_nothing_goes_while_a_study_of_this_clone_is_about_to_begin(clone: Clone):
    old, new = clone.train(1), clone.train(2)
    report(clone.root, STUDY, [new], clone.data)
    with store_lock.in_use(clone.root):
        assert "left alone while a study runs" in clone.collect(delete=True)
    assert clone.weights(old) == [0, 3, 6]


@pytest.mark.slow
def test_runs_that_were_deleted_in_mlflow_leave_no_files(clone: Clone):
    trained = clone.train(1)
    open_store(clone.root).client.delete_run(trained.run_id)
    assert "the run was deleted in MLflow" in clone.collect(delete=True)
    assert not trained.path.exists()


@pytest.mark.slow
def test_data_versions_go_that_no_branch_run_or_clone_has(clone: Clone, tmp_path: Path):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(clone.root)]
    reported = clone.train(1)
    report(clone.root, STUDY, [reported], clone.data)
    [first] = (data_version.listing(clone.root) or {}).values()
    tagged = clone.versioned(b"of a tag")
    subprocess.run([*git, "add", "data.dvc"], check=True)
    subprocess.run([*git, "commit", "-qm", "data"], check=True)
    subprocess.run([*git, "tag", "v1"], check=True)
    elsewhere = clone.versioned(b"of a clone")
    other = tmp_path / "other"
    shutil.copytree(clone.root, other, ignore=shutil.ignore_patterns("cache", "mlruns", "data"))
    nowhere = clone.versioned(b"of nobody")
    now = clone.versioned(b"of now")

    every = {first, tagged, elsewhere, nowhere, now}
    assert every <= clone.objects()
    said = clone.collect(other)
    assert "objects of DVC's cache: no branch, tag, run or named clone" in said
    assert every <= clone.objects(), "a look changes nothing"
    clone.collect(other, delete=True)
    assert data_version.version(clone.root) in clone.objects()
    assert clone.objects() & every == every - {nowhere}
    clone.collect(delete=True)
    assert clone.objects() & every == every - {nowhere, elsewhere}
    assert "There is nothing to remove." in clone.collect()


@pytest.mark.slow
def test_a_cache_that_others_share_is_left_alone_unless_they_are_named(clone: Clone, tmp_path: Path):
    shared = tmp_path / "shared"
    shutil.move(clone.root / ".dvc" / "cache", shared)
    subprocess.run([sys.executable, "-m", "dvc", "cache", "dir", str(shared)], cwd=clone.root, check=True)
    data_version.cache_root.cache_clear()
    clone.versioned(b"next")
    files = set(shared.rglob("*"))
    assert "lies outside this repository and is left alone" in clone.collect(delete=True)
    assert set(shared.rglob("*")) == files
