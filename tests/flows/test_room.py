"""A disk that is too small for what a study keeps is refused before anything trains; what is there already counts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from flows import room
from flows.room import require_disk
from holdfast.config.study import Study
from holdfast.errors import UserError
from tasks import tracking

ARMS = {"a": [{"method": "sft", "source": "answers"}], "b": [{"method": "sft", "source": "teacher"}]}
NEEDS = {"arms.a.0": {"disk": {"kept": 30e9, "running": 40e9}}, "arms.b.0": {"disk": {"kept": 30e9, "running": 10e9}}}


def test_what_has_been_trained_needs_no_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    study = Study(name="s", arms=ARMS, replicates=2)
    free = {"free": 161e9}
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(**free))
    require_disk(study, NEEDS, tmp_path)
    free["free"] = 159e9
    with pytest.raises(UserError, match=r"checkpoints will take 160\.0 GB and 159\.0 GB are free; .*keep_dtype"):
        require_disk(study, NEEDS, tmp_path)
    store = tracking.open_store(tmp_path)
    for replicate in ("1", "2", "2"):
        where = {"holdfast.arm": "a", "holdfast.stage": "0", "holdfast.replicate": replicate}
        store.end(store.begin("s", "a", {"holdfast.kind": "train", "holdfast.study": "s", **where}), "FINISHED", "")
    free["free"] = 71e9
    require_disk(study, NEEDS, tmp_path)
    free["free"] = 69e9
    with pytest.raises(UserError, match=r"take 70\.0 GB"):
        require_disk(study, NEEDS, tmp_path)
