"""A stage of several ranks ends as one: with its first, or with any that fails."""

from pathlib import Path

import psutil
import pytest
from stage_runs import job, use

from holdfast.config.results import Result
from holdfast.errors import UserError
from tasks import worker


@pytest.fixture
def two(root: Path):
    return job(root).model_copy(update={"gpus": 2, "device": "cpu"})


def test_a_killed_rank_ends_the_others_and_the_next_attempt_is_whole(two, root, monkeypatch):
    use(monkeypatch, "second_dies")
    with pytest.raises(worker.StageKilled, match=r"process, rank 1 of 2, was killed \(-9\) and the others were ended"):
        worker.run(two, root / "out", lambda lines: None)
    assert not worker._running
    worker.run(two, root / "out", lambda lines: None)
    result = Result.model_validate_json((root / "out" / "result.json").read_text())
    assert result.notes["ranks"] == 2
    assert not Path(result.notes["meeting"]).parent.exists()
    assert not list((root / "out").glob("rank-*"))
    # A rank that has nothing left to do is not waited for.
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(root) in str(one.info["cmdline"])]


def test_what_any_rank_says_of_a_users_mistake_is_told(two, root, monkeypatch):
    use(monkeypatch, "second_refuses")
    with pytest.raises(UserError, match=r"images\.path: /nowhere is missing"):
        worker.run(two, root / "out", lambda lines: None)
