"""A study goes from one store and clone to another, where its stages are found: whole, unchanged, or not at all."""

import fcntl
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from mlflow import MlflowClient
from reports import report, with_data
from repositories import new_repository
from stage_runs import history, job
from team_stack import stack_environment

from flows.commands.housekeeping import gc_lines
from holdfast.config.methods import SFT, Answers
from holdfast.config.refs import file_digest
from holdfast.config.study import Study
from holdfast.errors import UserError
from tasks import archive, data_version, slots, study_import, worker
from tasks.garbage import old_stages
from tasks.needed_runs import needed_runs
from tasks.parent_runs import study_run
from tasks.recorded import COMPARED, recorded_studies
from tasks.registry import aliases
from tasks.run_links import link_reported
from tasks.stage import Attempt, Context, Position, StageRun, find_stage
from tasks.study_export import export_study
from tasks.study_import import import_study
from tasks.tracking import Point, Store, open_store
from tasks.verification import Verifier

SECRET = "correct-horse-battery"
STUDY = Study(name="study", arms={"answers": (SFT(method="sft", source=Answers()),)})


class Source(NamedTuple):
    root: Path
    file: Path
    stage: StageRun
    study_run: str

    @property
    def store(self) -> Store:
        return open_store(self.root)


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A clone with git, DVC and an empty store."""
    root = tmp_path_factory.mktemp("blank")
    new_repository(root, {"name": "study"})
    (root / "mlruns").mkdir()
    shutil.copy(empty_store, root / "mlruns" / "mlflow.db")
    return root


@pytest.fixture(scope="module")
def source(blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    """A study with a report, exported; a password is in its notes and in the environment."""
    place = tmp_path_factory.mktemp("holdfast-source")
    root = place / "clone"
    shutil.copytree(blank, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("STORE_PASSWORD", SECRET)
        patch.setattr(worker, "PRELOAD", [])
        patch.setattr(worker, "ENTRY", "stage_entries:steps")
        patch.setattr(slots, "LOCKS", place / "slots")
        worker.stopping.clear()
        data = with_data(root)
        with study_run(root, STUDY) as run_id:
            context = Context(root=root, study=STUDY, study_run=run_id, data_version=data_version.version(root))
            stage = Attempt(job(root), context, Position("answers", 1)).run()
        store = open_store(root)
        [model] = [one for step, one in store.models.ids(store.run(stage.run_id)).items() if step == 3]
        store.log(stage.run_id, [Point("prior/mean/accuracy", 0.5, 3, 1.5e9, model)], ("study-0123abcd", "e" * 32))
        store.log(stage.run_id, [Point("train/loss", float("nan"), 9, 1.5e9)])
        store.tag(stage.run_id, {"holdfast.remark": f"https://me:{SECRET}@host/x, {root}/x, {stage.run_id}"})
        run_id = report(root, STUDY, [stage], data)
        store.artifacts.text(run_id, f"see postgresql://me:hunter2@host/db and {SECRET}", "notes.txt")
        store.models.register("study", "best-skill", stage.run_id, 3)
        export_study("study", place / "study.tar", root)
        yield Source(root, place / "study.tar", stage, run_id)


@pytest.fixture
def there(blank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another clone with a store of its own, which the process has not opened yet."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "there"
    shutil.copytree(blank, root)
    return root


def only(store: Store, kind: str) -> Any:
    [run] = store.search(f"tags.`holdfast.kind` = '{kind}'")
    return run


def test_an_imported_study_is_found_with_all_that_its_runs_had(source: Source, there: Path):
    done = import_study(source.file, there)
    assert (done.study, done.runs) == ("study", 2)
    store, before = open_store(there), source.store.run(source.stage.run_id)
    context = Context(root=there, study=STUDY, study_run="")
    found = find_stage(job(there), context, Position("answers", 1))
    assert found is not None
    # The job names places of its machine.
    files = source.stage.result.files | {"job.json": file_digest(found.path / "job.json")}
    assert found.result == source.stage.result.model_copy(update={"files": files})
    run = store.run(found.run_id)
    assert run.info.run_id != before.info.run_id
    assert (run.info.status, run.info.start_time, run.info.end_time) == (
        "FINISHED",
        before.info.start_time,
        before.info.end_time,
    )
    assert history(context, run.info.run_id) == history(
        Context(root=source.root, study=STUDY, study_run=""), before.info.run_id
    )
    assert set(run.data.params) == set(before.data.params)
    steps = store.models.ids(run)
    assert set(steps) == set(source.store.models.ids(before)) == {0, 3, 6}
    measured = {one.key: one for one in store.client.get_logged_model(steps[3]).metrics}
    assert set(measured) == {"prior/mean/accuracy", "target/jigsaw/score"}
    assert (measured["prior/mean/accuracy"].value, measured["prior/mean/accuracy"].timestamp) == (0.5, 1.5e12)
    assert measured["prior/mean/accuracy"].dataset_digest == "e" * 32
    assert aliases(store, "study") == {"best-skill": (run.info.run_id, 3)}
    [read] = run.inputs.dataset_inputs
    assert json.loads(read.dataset.source)["uri"] == str(there / "data" / "data")
    assert (there / "data" / "study-0123abcd" / "target-train.parquet").read_bytes() == b"questions"
    assert data_version.version(there) == data_version.version(source.root)

    study = only(store, "study")
    assert run.data.tags["mlflow.parentRunId"] == study.info.run_id
    place = store.artifacts.of(study)
    texts = [path.read_text() for top in (place, found.path) for path in top.rglob("*.json")]
    texts += [run.data.tags["holdfast.remark"], (place / "report.html").read_text(), *run.data.params.values()]
    for text in texts:
        assert str(source.root) not in text, "no place of the other machine"
        assert source.stage.run_id not in text, "no id of the other store"
        assert "holdfast-run:" not in text
        assert "holdfast-root:" not in text
    assert json.loads((place / COMPARED).read_text())["studies"][0]["runs"][0]["path"] == str(found.path)
    assert run.data.tags["holdfast.remark"].endswith(f"{there}/x, {run.info.run_id}")
    assert f"#/experiments/{study.info.experiment_id}/runs/{run.info.run_id}" in (place / "report.html").read_text()

    [link] = link_reported(there, store, "study")
    assert link == there / "runs" / "study" / "answers"
    assert (link / "result.json").is_file()
    assert not link.readlink().is_absolute()

    again = import_study(source.file, there)
    assert again.runs == 0
    assert len(store.search("")) == 2
    assert import_study(source.file, source.root).runs == 0, "where it comes from, it is there"
    assert not store.search("attributes.status = 'RUNNING'")
    assert not list((there / "mlruns" / "imports").glob("*/"))


def test_an_archive_has_no_password_no_place_and_no_process(source: Source):
    with tarfile.open(source.file) as tar:
        names = tar.getnames()
        contents = {name: tar.extractfile(name).read() for name in names}
    assert "versions/" + data_version.version(source.root) in names
    for name, content in contents.items():
        for word in (SECRET, "hunter2", str(source.root), str(Path.home()), "boot_id", "holdfast.pid"):
            assert word.encode() not in content, (name, word)
    assert b"https://me:***@host" in contents["study.json"]


def exported_again(source: Source, file: Path, there: Path) -> dict[str, bytes]:
    """What is in another archive of the study, which can be imported."""
    export_study("study", file, source.root)
    assert import_study(file, there).runs == 2
    assert find_stage(job(there), Context(root=there, study=STUDY, study_run="")) is not None
    with tarfile.open(file) as tar:
        return {name: tar.extractfile(name).read() for name in tar.getnames()}


def test_an_export_with_the_stacks_secrets_set_is_imported(
    source: Source, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stack_environment(monkeypatch, tmp_path / "stack.env")
    contents = exported_again(source, tmp_path / "a.tar", there)
    assert b'"holdfast.kind"' in contents["study.json"]
    [run] = [run for run in json.loads(contents["study.json"])["runs"] if "holdfast.remark" in run["tags"]]
    assert run["tags"]["holdfast.remark"].endswith(f"@host/x, holdfast-root:/x, {source.stage.run_id}")


def test_an_export_hides_a_secret_that_stands_in_places_and_beside_them(
    source: Source, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # The first is a directory above the clone, the second begins with the clone's own path.
    monkeypatch.setenv("WORD_PASSWORD", source.root.parent.name)
    monkeypatch.setenv("LONG_PASSWORD", f"{source.root}+planted")
    source.store.tag(source.stage.run_id, {"holdfast.other": f"{source.root}+planted {source.root}/x"})
    contents = exported_again(source, tmp_path / "a.tar", there)
    assert not [name for name, content in contents.items() if b"+planted" in content]
    assert b'"holdfast.other": "*** holdfast-root:/x"' in contents["study.json"]


@pytest.mark.parametrize("word", ["holdfast", "FINISHED", "evaluation"])
def test_a_secret_that_would_spoil_an_archive_is_refused_and_not_written(
    word: str, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORD_PASSWORD", word)
    with pytest.raises(UserError, match="has the value of WORD_PASSWORD in a name") as refused:
        export_study("study", tmp_path / "a.tar", source.root)
    assert f" {word} " not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_links_follow_the_latest_trainings_and_leave_files_of_others_alone(source: Source):
    top = source.root / "runs" / "study"
    (top / "gone" / "replicate-1").mkdir(parents=True)
    (top / "gone" / "replicate-2").symlink_to("../../nowhere")
    (top / "answers").symlink_to("../nowhere")
    (top / "mine.txt").write_text("mine")
    [link] = link_reported(source.root, source.store, "study")
    assert link.resolve() == source.stage.path
    assert {path.name for path in top.iterdir()} == {"answers", "mine.txt"}
    shutil.rmtree(source.root / "runs")


def untouched(root: Path) -> None:
    store = open_store(root)
    assert not store.search("")
    assert not data_version.version(root)
    assert not (root / "data").exists() or not list((root / "data").rglob("*.parquet"))
    assert not list((root / "mlruns" / "imports").glob("*/"))


def rewritten(source: Source, file: Path, **changed: Any) -> Path:
    """The archive with other contents of study.json, whose digest is right."""
    out = file.parent / "unpacked"
    archive.extract(source.file, out)
    study = json.loads((out / "study.json").read_text())
    for run in study["runs"]:
        run.update(changed)
    (out / "study.json").write_text(json.dumps(study))
    files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}
    archive.write(file, "study", files)
    return file


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"surprise": 1}, "not as .holdfast export. writes it"),
        ({"experiment": "../../etc"}, "not as .holdfast export. writes it"),
        ({"run_id": "../x"}, "not as .holdfast export. writes it"),
        ({"name": "other"}, "holds no run of the study"),
        ({"run_id": "b" * 32}, "two runs of the archive have one id"),
    ],
)
def test_descriptions_that_nobody_exported_change_nothing(
    changed: dict[str, Any], sentence: str, source: Source, there: Path, tmp_path: Path
):
    file = rewritten(source, tmp_path / "other.tar", **changed)
    with pytest.raises(UserError, match=sentence):
        import_study(file, there)
    untouched(there)


@pytest.mark.parametrize("name", ["/etc/passwd", "checkpoints/step-000003/../../../../x"])
def test_results_that_name_files_elsewhere_change_nothing(name: str, source: Source, there: Path, tmp_path: Path):
    out = tmp_path / "unpacked"
    archive.extract(source.file, out)
    file = next(out.glob("runs/*/result.json"))
    result = json.loads(file.read_text())
    file.write_text(json.dumps(result | {"files": {**result["files"], name: "0" * 64}}))
    files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}
    archive.write(tmp_path / "other.tar", "study", files)
    with pytest.raises(UserError, match="lies elsewhere"):
        import_study(tmp_path / "other.tar", there)
    untouched(there)


def test_a_clone_with_other_data_of_this_name_changes_nothing(source: Source, there: Path):
    other = there / "data" / "study-0123abcd" / "target-train.parquet"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"mine")
    with pytest.raises(UserError, match="is there with other contents"):
        import_study(source.file, there)
    assert other.read_bytes() == b"mine"
    assert not open_store(there).search("")


def test_samples_that_are_pinned_and_not_there_keep_their_pins(source: Source, there: Path):
    place = there / "data" / "study-0123abcd"
    place.mkdir(parents=True)
    (place / "samples-0123abcd.parquet").write_bytes(b"sampled")
    data_version.record(there, place.iterdir())
    [(sample, md5)] = (data_version.listing(there) or {}).items()
    shutil.rmtree(there / "data")
    import_study(source.file, there)
    found = data_version.listing(there) or {}
    assert found.pop(sample) == md5
    assert [*found] == ["study-0123abcd/target-train.parquet"]


def test_a_clone_without_dvc_changes_nothing(source: Source, there: Path):
    shutil.rmtree(there / ".dvc")
    with pytest.raises(UserError, match="run `dvc init`"):
        import_study(source.file, there)
    assert not open_store(there).search("")


@pytest.mark.slow
@pytest.mark.parametrize("at", ["fill", "add_files", "_show", "_set_aliases"])
@pytest.mark.parametrize("error", [OSError("the store is gone"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_an_interrupted_import_shows_nothing_and_is_repeated(
    at: str, error: BaseException, source: Source, there: Path, monkeypatch: pytest.MonkeyPatch
):
    def fails(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(study_import, at, fails)
        with pytest.raises(type(error)):
            import_study(source.file, there)
    store = open_store(there)
    if at != "_set_aliases":
        assert not store.search(""), "what was half there is deleted"
        assert not list((there / "mlruns" / "artifacts").rglob("*.safetensors"))
    done = import_study(source.file, there)
    assert done.runs == (0 if at == "_set_aliases" else 2)
    assert len(store.search("")) == 2
    assert find_stage(job(there), Context(root=there, study=STUDY, study_run="")) is not None
    assert aliases(store, "study")


@pytest.fixture
def killed(source: Source, there: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The runs that an import left that ended as after SIGKILL: nothing is undone."""
    with monkeypatch.context() as patch:
        patch.setattr(study_import, "_undo", lambda *_: None)
        patch.setattr(study_import.shutil, "rmtree", lambda *_, **__: None)
        patch.setattr(study_import, "add_files", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            import_study(source.file, there)
    half = open_store(there).search("")
    assert len(half) == 2
    return half


def died(store: Store, runs: list[Any]) -> None:
    for run in runs:
        store.tag(run.info.run_id, {"holdfast.started": "1"})


@pytest.mark.slow
def test_what_a_killed_import_left_is_deleted_by_the_next(source: Source, there: Path, killed: list[Any]):
    store = open_store(there)
    assert find_stage(job(there), Context(root=there, study=STUDY, study_run="")) is None
    with pytest.raises(UserError, match="another process imports it"):
        import_study(source.file, there)
    died(store, killed)
    assert import_study(source.file, there).runs == 2
    assert not {run.info.run_id for run in killed} & {run.info.run_id for run in store.search("")}


def test_what_a_killed_import_left_is_garbage_once_its_process_is_dead(source: Source, there: Path, killed: list[Any]):
    store, artifacts = open_store(there), there / "mlruns" / "artifacts"
    [unpacked] = (there / "mlruns" / "imports").glob("*/")
    with unpacked.with_suffix(".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = "\n".join(gc_lines(there, [], delete=True))
    assert "There is nothing to remove." in said
    assert list(artifacts.rglob("*.safetensors"))
    died(store, killed)
    said = "\n".join(gc_lines(there, [], delete=True))
    assert said.count("its import was killed") == 3
    assert not unpacked.exists()
    assert not store.search("")
    assert not [path for path in artifacts.rglob("*") if path.is_file()]
    assert import_study(source.file, there).runs == 2


def with_other_weights(source: Source, file: Path) -> Path:
    out = file.parent / "unpacked"
    archive.extract(source.file, out)
    for weights in out.rglob("model.safetensors"):
        weights.write_bytes(b"other")
    files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}
    archive.write(file, "study", files)
    return file


def missing(root: Path) -> list[str]:
    """What verification names of the stages of the study."""
    store = open_store(root)
    [study] = recorded_studies(STUDY.name, store)
    found = Verifier(study, store, root, lambda _what: None).check()
    return [name for one in found for name in one.wrong if one.what.startswith("train")]


@pytest.mark.parametrize("place", ["there", "source"])
def test_what_runs_have_lost_since_is_brought_back(place: str, source: Source, there: Path, tmp_path: Path):
    root = there if place == "there" else source.root
    import_study(source.file, root)
    context, store = Context(root=root, study=STUDY, study_run=""), open_store(root)
    train, ids = only(store, "train"), {run.info.run_id for run in store.search("")}
    before, measured = find_stage(job(root), context), history(context, train.info.run_id)
    assert before is not None
    later = SimpleNamespace(info=SimpleNamespace(start_time=train.info.end_time + 1))
    [garbage] = old_stages(root, store, needed_runs(store)._replace(referred=set(), reported={"study": later}))
    garbage.remove()
    assert find_stage(job(root), context) is None
    assert missing(root)
    if root == source.root:
        with pytest.raises(UserError, match=r"model\.safetensors of the archive is not what the run recorded"):
            import_study(with_other_weights(source, tmp_path / "other.tar"), root)

    done = import_study(source.file, root)
    assert (done.runs, done.mended) == (0, 1)
    assert find_stage(job(root), context) == before
    assert history(context, train.info.run_id) == measured
    assert set(store.models.ids(store.run(train.info.run_id))) == {0, 3, 6}
    assert "holdfast.removed" not in store.run(train.info.run_id).data.tags
    assert not missing(root)

    store.delete(train)
    shutil.rmtree(before.path)
    assert import_study(source.file, root).mended == 1
    assert find_stage(job(root), context) == before
    assert history(context, train.info.run_id) == measured
    assert not missing(root)
    assert import_study(source.file, root).mended == 0
    assert {run.info.run_id for run in store.search("")} == ids


def test_a_run_that_mlflow_purged_is_named_with_what_makes_it_anew(source: Source, there: Path):
    import_study(source.file, there)
    store = open_store(there)
    train, top = only(store, "train"), only(store, "study")
    store.delete(train)
    MlflowClient(store.uri)._tracking_client.store._hard_delete_run(train.info.run_id)
    with pytest.raises(UserError, match=f"gone for good.*mlflow runs delete --run-id {top.info.run_id}"):
        import_study(source.file, there)
    store.client.delete_run(top.info.run_id)
    assert import_study(source.file, there).runs == 2
    assert not missing(there)


def test_what_cannot_be_exported_is_said_in_a_sentence(source: Source, tmp_path: Path):
    with pytest.raises(UserError, match="no study or sweep of this name has a report"):
        export_study("unknown", tmp_path / "a.tar", source.root)
    with pytest.raises(UserError, match="is there already"):
        export_study("study", source.file, source.root)
    with pytest.raises(UserError, match="its directory is not there"):
        export_study("study", tmp_path / "no" / "a.tar", source.root)
    weights = next(source.stage.path.rglob("model.safetensors"))
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    with pytest.raises(UserError, match="are gone or changed"):
        export_study("study", tmp_path / "a.tar", source.root)
    weights.write_bytes(content)
    shutil.move(source.root / "data", source.root / "elsewhere")
    shutil.move(source.root / ".dvc" / "cache", source.root / "cache")
    with pytest.raises(UserError, match="neither here nor in DVC's cache or remote"):
        export_study("study", tmp_path / "a.tar", source.root)
    shutil.move(source.root / "elsewhere", source.root / "data")
    shutil.move(source.root / "cache", source.root / ".dvc" / "cache")
    assert not list(tmp_path.glob("a.tar*"))
