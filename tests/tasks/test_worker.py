"""The first moments of a stage's process, in which it has no log yet."""

from __future__ import annotations

import os
from pathlib import Path

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
def test_a_log_that_cannot_be_written_ends_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "setsid", lambda: None)
    monkeypatch.setattr(worker, "_die_with_parent", lambda: None)
    with pytest.raises(SystemExit) as end:
        _child("never:called", str(tmp_path / "missing"), "", ALONE)
    assert end.value.code == 1
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match=r"cannot be written \(read-only file system\); free some space or make it"):
        _raise_failure(_End(1), tmp_path, [ALONE])
