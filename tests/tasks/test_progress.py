import io
import re
import time
from contextlib import nullcontext

import pytest
from rich.console import Console

from tasks import progress


@pytest.fixture
def plain(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=written, width=120))
    return written


def test_without_a_terminal_an_evaluation_is_one_line(plain):
    with progress.display(), progress.running("grpo") as show:
        show([{"done": 10, "total": 100, "shown": {"reward": 1.25}}])
        show([{"step": 10, "metrics": {"target/jigsaw/score": 0.5, "prior/mean/accuracy": 0.9, "train/lr": 1.0}}])
    lines = plain.getvalue().splitlines()
    assert lines[0] == "grpo: started"
    assert lines[1].startswith("grpo: 10/100  0:00")
    assert lines[1].endswith("reward 1.25  score 0.5  prior 0.9")
    assert lines[2].startswith("grpo: done after")
    assert len(lines) == 3


def test_an_alarm_is_a_plain_line(plain):
    with progress.running("grpo") as show:
        show([{"step": 7, "metrics": {"alarm/length": 1.0}, "alarm": "length", "sentence": "it grew [bold]"}])
    assert "grpo: alarm length at step 7: it grew [bold]\n" in plain.getvalue()


def test_a_stage_that_ends_with_an_error_is_not_called_done(plain):
    with pytest.raises(RuntimeError), progress.running("grpo"):
        raise RuntimeError
    assert "grpo: stopped after" in plain.getvalue()


def test_time_left_follows_the_pace_since_the_first_sign_of_progress(plain, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress._stages, "get_time", lambda: clock[0])
    with progress.running("answers") as show:
        (stage,) = progress._stages.tasks
        clock[0] = 100.0
        show([{"done": 50, "total": 110, "shown": {}}])
        assert progress._left(stage) == ""
        clock[0] = 110.0
        show([{"done": 60, "total": 110, "shown": {}}])
        assert progress._left(stage) == "0:50 left"
    assert plain.getvalue().endswith("answers: done after 1:50\n")


def test_names_of_arms_are_not_read_as_markup(plain):
    progress.found("[bold]x[/bold]")
    assert plain.getvalue() == "[bold]x[/bold]: found\n"


def test_a_terminal_shows_a_row_for_every_running_stage(monkeypatch):
    written = io.StringIO()
    terminal = Console(file=written, width=120, force_terminal=True)
    monkeypatch.setattr(progress, "console", terminal)
    monkeypatch.setattr(progress._stages.live, "console", terminal)
    with progress.display(), progress.running("[b]one"), progress.running("two") as show:
        show([{"done": 1, "total": 2, "shown": {"loss": 0.5}}])
        progress._stages.refresh()
    assert re.search(r"\[b\]one +0:00.*\n.*two +1/2 0:00 +loss 0\.5", written.getvalue())
    assert not progress._stages.tasks


def test_the_score_of_any_target_is_shown(plain):
    with progress.display(), progress.running("sft") as show:
        show([{"done": 1, "total": 2, "shown": {}}])
        show([{"step": 1, "metrics": {"target/banner/score": 0.25, "prior/mean/accuracy": 0.9}}])
    assert plain.getvalue().splitlines()[1].endswith("score 0.25  prior 0.9")


@pytest.mark.parametrize("busy", [False, True])
def test_waiting_is_told_where_nothing_of_this_study_runs(plain, monkeypatch, busy):
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    with progress.running("one") if busy else nullcontext(), progress.waiting("two"):
        time.sleep(0.2)
    assert ("two: waits for room" in plain.getvalue()) is not busy


def test_a_short_wait_is_not_told(plain):
    with progress.waiting("two"):
        pass
    assert plain.getvalue() == ""
