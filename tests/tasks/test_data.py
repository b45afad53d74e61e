"""Data under version control, with a real git and DVC repository."""

import errno
import fcntl
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from holdfast.benchmarks.dataset import make_data
from holdfast.config.jobs import MakeData
from holdfast.config.methods import SFT, Answers
from holdfast.config.prior import Imported, Prior
from holdfast.config.study import Study
from holdfast.config.targets import Banner, Jigsaw
from holdfast.errors import UserError
from tasks import data, data_version

STUDY = Study(
    name="tiny",
    target=Jigsaw(train=4, validation=2, test=2),
    prior=(Prior(benchmark="color", questions=3),),
    arms={"answers": (SFT(method="sft", source=Answers()),)},
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository as a clone has it, before any data."""
    root = tmp_path_factory.mktemp("template")
    subprocess.run(["git", "init", "-q", root], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=root, check=True)
    (root / ".gitignore").write_text("/data/\n")
    (root / ".dvcignore").write_text("*.partial\n")
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "repository"))


class Generator:
    """The data stage in this process; remembers how often it ran."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, job: MakeData, into: Path) -> None:
        self.runs += 1
        into.mkdir()
        make_data(job, into)


def never(job: MakeData, into: Path) -> None:
    raise AssertionError("data was made again")


def seeded(seed: int) -> Study:
    return STUDY.model_copy(update={"seed": seed})


def forget_cache(root: Path) -> None:
    shutil.rmtree(root / ".dvc" / "cache")


def test_new_data_becomes_a_version_that_dvc_itself_agrees_with(root: Path) -> None:
    ref = data.prepare_data(STUDY, root, Generator())
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], cwd=root, check=True, capture_output=True, text=True
    )
    assert status.stdout.strip() == "{}"
    assert data.version(root).endswith(".dir")
    assert sorted(data_version.listing(root) or {}) == [
        f"{ref.path.name}/{name}"
        for name in (
            "prior-color.parquet",
            "prior_validation-color.parquet",
            "target-test.parquet",
            "target-train.parquet",
            "target-validation.parquet",
        )
    ]
    assert not list((root / "data").glob("*.partial"))


def test_data_that_is_there_is_verified_without_dvc(root: Path) -> None:
    first = data.prepare_data(STUDY, root, Generator())
    program = (
        "import sys; from pathlib import Path; from holdfast.config.study import Study; from tasks import data\n"
        "ref = data.prepare_data(Study.model_validate_json(sys.argv[1]), Path(sys.argv[2]), None)\n"
        "assert not {'dvc', 'torch'} & set(sys.modules), 'slow imports'\n"
        "print(ref.digest)"
    )
    command = [sys.executable, "-c", program, STUDY.model_dump_json(), str(root)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == first.digest


def test_missing_data_comes_back_from_the_cache(root: Path) -> None:
    ref = data.prepare_data(STUDY, root, Generator())
    shutil.rmtree(root / "data")
    assert data.prepare_data(STUDY, root, never) == ref


def test_what_comes_first_is_called_where_files_are_missing_and_holds_up_no_other_study(root: Path) -> None:
    called: list[bool] = []

    def first() -> None:
        with data.data_lock(root):
            called.append(True)

    data.prepare_data(STUDY, root, Generator(), first=first)
    assert called == [True]
    data.prepare_data(STUDY, root, never, first=first)
    assert called == [True]


def test_a_single_missing_file_comes_back(root: Path) -> None:
    ref = data.prepare_data(STUDY, root, Generator())
    (ref.path / "target-test.parquet").unlink()
    assert data.prepare_data(STUDY, root, never) == ref


def test_missing_data_comes_back_from_a_remote(root: Path, tmp_path: Path) -> None:
    ref = data.prepare_data(STUDY, root, Generator())
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "remote", "add", "-q", "-d", "store", str(tmp_path / "remote")], cwd=root, check=True)
    subprocess.run([*dvc, "push", "-q"], cwd=root, check=True)
    shutil.rmtree(root / "data")
    forget_cache(root)
    assert data.prepare_data(STUDY, root, never) == ref


@pytest.mark.slow
def test_a_remote_that_cannot_be_reached_is_said_and_the_data_made_again(
    root: Path, capsys: pytest.CaptureFixture
) -> None:
    ref = data.prepare_data(STUDY, root, Generator())
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "remote", "add", "-q", "-d", "store", "http://127.0.0.1:9/none"], cwd=root, check=True)
    shutil.rmtree(root / "data")
    forget_cache(root)
    generator = Generator()
    assert data.prepare_data(STUDY, root, generator) == ref
    assert generator.runs == 1
    assert capsys.readouterr().err.count("DVC's remote cannot give the data") == 1


def test_what_dvc_cannot_do_is_one_sentence(root: Path) -> None:
    (root / ".dvc" / "config").write_text("[core]\n    remote = nowhere\n    unknown = 1\n")
    with pytest.raises(UserError, match=r"data\.dvc: DVC refuses \(.+\); run `dvc doctor`"):
        data.prepare_data(STUDY, root, Generator())


def test_a_list_of_locks_that_a_full_disk_tore_is_forgotten(root: Path) -> None:
    (root / ".dvc" / "tmp" / "rwlock").write_text('{"write": {"/some')
    ref = data.prepare_data(STUDY, root, Generator())
    assert {Path(name).parts[0] for name in data_version.listing(root) or {}} == {ref.path.name}


@pytest.mark.slow
def test_a_torn_directory_in_dvcs_cache_is_written_again(root: Path) -> None:
    ref = data.prepare_data(STUDY, root, Generator())
    torn = data_version.cache_path(root, data.version(root))
    torn.chmod(0o644)
    torn.write_bytes(torn.read_bytes()[:50])
    other = data.prepare_data(seeded(1), root, Generator())
    names = {Path(name).parts[0] for name in data_version.listing(root) or {}}
    assert names == {ref.path.name, other.path.name}


def test_without_cache_and_remote_the_same_data_is_made_again(root: Path) -> None:
    ref = data.prepare_data(STUDY, root, Generator())
    version = data.version(root)
    shutil.rmtree(root / "data")
    forget_cache(root)
    generator = Generator()
    assert data.prepare_data(STUDY, root, generator) == ref
    assert generator.runs == 1
    assert data.version(root) == version


def test_a_changed_file_is_named_with_the_remedies(root: Path) -> None:
    ref = data.prepare_data(STUDY, root, Generator())
    (ref.path / "prior-color.parquet").write_bytes(b"changed")
    with pytest.raises(UserError, match=r"prior-color\.parquet: differs from data\.dvc.*dvc checkout.*--accept"):
        data.prepare_data(STUDY, root, never)
    assert (ref.path / "prior-color.parquet").read_bytes() == b"changed"


def test_data_that_is_made_differently_is_refused_and_can_be_accepted(root: Path) -> None:
    ref = data.prepare_data(STUDY, root, Generator())
    version = data.version(root)
    shutil.rmtree(root / "data")
    forget_cache(root)

    def different(job: MakeData, into: Path) -> None:
        Generator()(job, into)
        (into / "target-test.parquet").write_bytes(b"different")

    with pytest.raises(UserError, match=r"target-test\.parquet: differs"):
        data.prepare_data(STUDY, root, different)
    assert data.version(root) == version
    accepted = data.prepare_data(STUDY, root, never, accept=True)
    assert accepted.digest != ref.digest
    assert data.version(root) != version
    assert data.prepare_data(STUDY, root, never) == accepted


@pytest.mark.slow
def test_other_data_keeps_its_pins_when_only_new_data_is_here(root: Path) -> None:
    ref = data.prepare_data(STUDY, root, Generator())
    shutil.rmtree(root / "data")
    forget_cache(root)
    other = data.prepare_data(seeded(1), root, Generator())
    names = {Path(name).parts[0] for name in data_version.listing(root) or {}}
    assert names == {ref.path.name, other.path.name}
    assert data.prepare_data(STUDY, root, Generator()) == ref


def test_samples_are_a_new_version_once(root: Path, tmp_path: Path) -> None:
    ref = data.prepare_data(STUDY, root, Generator())
    before = data.version(root)
    (tmp_path / "samples.parquet").write_bytes(b"sampled")
    first = data.add_samples(ref, tmp_path / "samples.parquet", "0123456789abcdef")
    after = data.version(root)
    assert after != before
    assert first.path == ref.path / "samples-01234567.parquet"
    assert data.add_samples(ref, tmp_path / "samples.parquet", "0123456789abcdef") == first
    assert data.version(root) == after
    assert data.prepare_data(STUDY, root, never) == ref


@pytest.mark.parametrize("cached", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_fresh_clone_keeps_the_pins_of_samples_that_are_not_there(root: Path, tmp_path: Path, cached: bool) -> None:
    ref = data.prepare_data(STUDY, root, Generator())
    (tmp_path / "samples.parquet").write_bytes(b"sampled")
    sample = data.add_samples(ref, tmp_path / "samples.parquet", "0123456789abcdef").path
    pointer = (root / "data.dvc").read_text()
    shutil.rmtree(root / "data")
    if not cached:
        forget_cache(root)
    assert data.prepare_data(STUDY, root, Generator()) == ref
    assert not sample.exists()
    assert (root / "data.dvc").read_text() == pointer
    # Every shard is in the cache again, for whoever pushes.
    shards = [md5 for name, md5 in (data_version.listing(root) or {}).items() if not data.is_sample(name)]
    assert all(data_version.cache_path(root, md5).is_file() for md5 in shards)

    (ref.path / "target-test.parquet").write_bytes(b"different")
    data.prepare_data(STUDY, root, never, accept=True)
    assert f"{ref.path.name}/{sample.name}" in (data_version.listing(root) or {})


@pytest.mark.slow
def test_a_list_of_files_that_a_kill_left_behind_is_mended(root: Path) -> None:
    ref = data.prepare_data(STUDY, root, Generator())
    document = yaml.safe_load((root / "data.dvc").read_text())
    listing = document["meta"].pop("files")
    (root / "data.dvc").write_text(yaml.safe_dump(document))
    assert data.prepare_data(STUDY, root, never) == ref
    assert data_version.listing(root) == listing


@pytest.mark.slow
def test_data_that_was_made_but_not_recorded_is_recorded(root: Path) -> None:
    first = data.prepare_data(STUDY, root, Generator())
    (root / "data.dvc").unlink()
    assert data.prepare_data(STUDY, root, never) == first
    assert data_version.listing(root)


def test_a_broken_pointer_is_named(root: Path) -> None:
    data.prepare_data(STUDY, root, Generator())
    (root / "data.dvc").write_text("<<<<<<< HEAD\n")
    with pytest.raises(UserError, match=r"data\.dvc: is no pointer.*git checkout"):
        data.prepare_data(STUDY, root, never)


@pytest.mark.parametrize("earlier", [True, False])
def test_a_pointer_that_dvc_emptied_and_could_not_write_is_as_it_was(
    root: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    pointer, real = root / "data.dvc", data_version._dvc
    if earlier:
        data.prepare_data(STUDY, root, Generator())
    before = pointer.read_bytes() if earlier else None

    def on_a_full_disk(at: Path, *arguments: str, **named: Any) -> str:
        if arguments[0] != "add":
            return real(at, *arguments, **named)
        pointer.write_text("")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(data_version, "_dvc", on_a_full_disk)
    with pytest.raises(OSError, match="No space left"):
        data.prepare_data(seeded(7), root, Generator())
    assert (pointer.read_bytes() if earlier else pointer.is_file()) == (before if earlier else False)


@pytest.mark.slow
def test_a_pointer_that_another_thread_rewrites_is_read_when_it_is_whole(root: Path, tmp_path: Path) -> None:
    ref, pointer = data.prepare_data(STUDY, root, Generator()), root / "data.dvc"
    version, text = data.version(root), pointer.read_text()
    (tmp_path / "samples.parquet").write_bytes(b"sampled")
    with ThreadPoolExecutor() as readers:
        with data.data_lock(root):
            # As DVC does before it writes.
            pointer.write_text("")
            found = readers.submit(data.version, root)
            prepared = readers.submit(data.prepare_data, STUDY, root, never)
            added = readers.submit(data.add_samples, ref, tmp_path / "samples.parquet", "0123456789abcdef")
            time.sleep(0.2)
            pointer.write_text(text)
        assert prepared.result() == ref
        assert added.result().path.is_file()
        assert found.result() in (version, data.version(root))


def test_a_repository_without_dvc_is_told_to_initialise_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `dvc init`"):
        data.prepare_data(STUDY, tmp_path, never)


@pytest.mark.slow
def test_a_copy_without_git_works(root: Path) -> None:
    shutil.rmtree(root / ".git")
    ref = data.prepare_data(STUDY, root, Generator())
    shutil.rmtree(root / "data")
    assert data.prepare_data(STUDY, root, never) == ref


def test_nothing_is_left_behind_when_making_fails(root: Path) -> None:
    def failing(job: MakeData, into: Path) -> None:
        raise OSError("the stage's process was killed")

    with pytest.raises(OSError, match="killed"):
        data.prepare_data(STUDY, root, failing)
    assert not list((root / "data").iterdir())
    data.prepare_data(STUDY, root, Generator())


@pytest.mark.slow
def test_threads_prepare_different_data_at_the_same_time(root: Path) -> None:
    threads = [threading.Thread(target=data.prepare_data, args=(seeded(seed), root, Generator())) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({Path(name).parts[0] for name in data_version.listing(root) or {}}) == 3


@pytest.fixture
def held_lock(root: Path) -> Iterator[subprocess.Popen]:
    """DVC's own lock, held by another program until it is killed."""
    program = (
        "import sys, zc.lockfile; lock = zc.lockfile.LockFile(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    )
    (root / ".dvc" / "tmp").mkdir(exist_ok=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(root / ".dvc" / "tmp" / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    yield holder
    holder.kill()
    holder.wait()


def test_a_busy_dvc_lock_is_waited_for_and_told(
    root: Path, held_lock: subprocess.Popen, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run = data_version._run

    def released_once_busy(*given: Any) -> Any:
        done = run(*given)
        if data_version.LOCKED.search(done.stderr):
            held_lock.kill()
            held_lock.wait()
        return done

    monkeypatch.setattr(data_version, "_run", released_once_busy)
    data.prepare_data(STUDY, root, Generator())
    assert capsys.readouterr().err.count("Waiting for DVC's lock") == 1


@pytest.mark.slow
def test_a_dvc_lock_that_stays_busy_is_an_error(
    root: Path, held_lock: subprocess.Popen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_version, "LOCK_LIMIT", 0.0)
    generator = Generator()
    with pytest.raises(UserError, match="has held DVC's lock"):
        data.prepare_data(STUDY, root, generator)
    held_lock.kill()
    held_lock.wait()
    data.prepare_data(STUDY, root, never)


def test_moved_input_files_name_the_same_data_and_changed_ones_other_data(tmp_path: Path) -> None:
    def place(folder: str, answer: str) -> str:
        directory = tmp_path / folder
        directory.mkdir()
        Image.new("RGB", (8, 8)).save(directory / "a.png")
        (directory / "own.jsonl").write_text(f'{{"image": "a.png", "question": "?", "answer": "{answer}"}}\n')
        own = Imported(name="own", path=directory / "own.jsonl")
        return data.data_directory("x", data.data_job(STUDY.model_copy(update={"prior": (own,)})), tmp_path).name

    assert place("here", "yes") == place("there", "yes") != place("elsewhere", "no")


def test_a_target_of_the_users_files_is_named_by_their_content(tmp_path: Path) -> None:
    names = []
    for place, color in (("here", "red"), ("there", "red"), ("elsewhere", "blue")):
        (tmp_path / place).mkdir()
        Image.new("RGB", (8, 8), color).save(tmp_path / place / "a.png")
        path = tmp_path / place / "own.jsonl"
        path.write_text('{"image": "a.png", "question": "Which brand?", "answer": "x"}')
        study = STUDY.model_copy(update={"target": Banner(benchmark="banner", path=path)})
        names.append(data.data_directory("own", data.data_job(study), tmp_path).name)
    assert names[0] == names[1] != names[2]


def test_nothing_is_printed_when_all_goes_well(root: Path, capfd: pytest.CaptureFixture) -> None:
    data.prepare_data(STUDY, root, Generator())
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_another_study_that_prepares_is_waited_for(root: Path, capsys: pytest.CaptureFixture) -> None:
    (root / ".dvc" / "tmp").mkdir(exist_ok=True)
    with (root / ".dvc" / "tmp" / "holdfast.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        threading.Timer(0.5, file.close).start()
        data.prepare_data(STUDY, root, Generator())
    assert "Waiting for another study" in capsys.readouterr().err
