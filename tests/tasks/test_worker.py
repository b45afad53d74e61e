"""The first moments of a stage's process."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from holdfast.config.ranks import ALONE
from holdfast.errors import UserError
from tasks import worker
from tasks.worker import _child, _End, _killed, _raise_failure


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends by an exception here."""
    monkeypatch.setattr(os, "_exit", lambda code: (_ for _ in ()).throw(SystemExit(code)))


@pytest.mark.usefixtures("ended")
def test_an_interrupt_before_there_is_a_log_counts_as_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "setsid", interrupted)
    with pytest.raises(SystemExit) as end:
        _child("never:called", str(tmp_path), "", ALONE)
    assert _killed(end.value.code)


@pytest.mark.usefixtures("ended")
def test_an_interrupt_of_a_stage_at_work_counts_as_killed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "_settle", lambda *_: os.open(tmp_path / "lock", os.O_WRONLY | os.O_CREAT))
    monkeypatch.setattr(worker.pkgutil, "resolve_name", lambda _: interrupted)
    with pytest.raises(SystemExit) as end:
        _child("at:work", str(tmp_path), "", ALONE)
    assert _killed(end.value.code)
    assert "KeyboardInterrupt" in capsys.readouterr().err, "its log says where"


@pytest.mark.usefixtures("ended")
def test_a_log_that_cannot_be_written_ends_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "setsid", lambda: None)
    monkeypatch.setattr(worker, "_die_with_parent", lambda: None)
    with pytest.raises(SystemExit) as end:
        _child("never:called", str(tmp_path / "missing"), "", ALONE)
    assert end.value.code == 1
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match=r"cannot be written \(read-only file system\); free some space or make it"):
        _raise_failure(_End(1), tmp_path, [ALONE])


class Young:
    sentinel = 0


def test_a_process_that_is_being_started_is_ended_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else would: the command would wait for it, hours if it trains so long."""
    told: list[tuple[Any, signal.Signals]] = []
    young: Any = Young()
    monkeypatch.setattr(worker, "_running", set())
    monkeypatch.setattr(worker, "_signal", lambda process, number: told.append((process, number)))
    monkeypatch.setattr(worker, "wait", lambda *_: [])
    ending = threading.Thread(target=worker.stop_all, args=(0.0,))
    try:
        with worker._polling:
            ending.start()
            ending.join(0.2)
            worker._running.add(young)
        ending.join(10)
    finally:
        worker.stopping.clear()
    assert told == [(young, signal.SIGTERM), (young, signal.SIGKILL)]
