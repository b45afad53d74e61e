import shutil
from pathlib import Path

import pytest

from holdfast.config.methods import SFT, Answers
from holdfast.config.study import Study
from tasks import slots, tracking, worker
from tasks.parent_runs import study_run
from tasks.stage import Context


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs: making one takes seconds."""
    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking.Store(root).experiment("puzzles")
    return root / "mlruns" / "mlflow.db"


@pytest.fixture
def root(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with an empty store, whose stages are cheap and run apart from those of this machine."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(worker, "PRELOAD", [])
    monkeypatch.setattr(worker, "ENTRY", "stage_entries:steps")
    monkeypatch.setattr(slots, "LOCKS", tmp_path / "slots")
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns" / "mlflow.db")
    worker.stopping.clear()
    return tmp_path


@pytest.fixture
def study() -> Study:
    return Study(name="study", arms={"answers": (SFT(method="sft", source=Answers()),)})


@pytest.fixture
def context(root: Path, study: Study):
    with study_run(root, study) as run_id:
        yield Context(root=root, study=study, study_run=run_id, data_version="a" * 32 + ".dir")
