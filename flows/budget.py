"""A study's budget: no training begins that would not end, with what is measured of it, within the hours that it has.

The hours are those of one command, from its start. What is left out is named in the report; the same command, given
again, goes on with it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from flows.estimate import Estimates, rough_time, stage_ids
from holdfast.config.jobs import AnyJob
from holdfast.config.study import Study
from holdfast.errors import UserError
from tasks.stage import Admit, Context, Position

BEFORE = ("sample", "select", "train")
"""The stages that may be left out. What has been trained is measured."""


class OverBudget(Exception):
    """A training that would have ended after the budget."""


class Unbegun(Exception):
    """A training whose samples come from one that did not finish."""


def deadline(study: Study) -> float | None:
    """By `time.monotonic`, of a command that starts now; None without a budget."""
    return None if study.budget is None else time.monotonic() + 3600 * study.budget


def require_room(studies: Sequence[Study], root: Path) -> None:
    """Refuse a budget in which nothing would be trained.

    Raises:
        UserError: what is known to be the shortest training takes longer than all of it.
    """
    for study in studies:
        if study.budget is None:
            continue
        times = {arm: _seconds(study, root, Position(arm, 1, 0)) for arm in study.trained}
        shortest = min(times, key=lambda arm: times[arm])
        if times[shortest] > 3600 * study.budget:
            raise UserError(
                f"budget: {study.budget:g} h has room for no training; the shortest, arms.{shortest}, takes "
                f"{rough_time(times[shortest])}; raise the budget or train fewer steps."
            )


def admission(job: AnyJob, position: Position, context: Context) -> Admit | None:
    """What is asked when there is room for a stage: raises OverBudget where its training would end too late."""
    if context.ends is None or job.verb not in BEFORE:
        return None
    return partial(_admit, job.verb, position, context)


def only_budget(failed: Mapping[str, Exception]) -> bool:
    """Whether all that is missing was left out by the budget."""
    return all(isinstance(error, OverBudget | Unbegun) for error in failed.values())


def _admit(verb: str, position: Position, context: Context) -> None:
    assert context.ends is not None
    needed, left = _seconds(context.study, context.root, position, verb), context.ends - time.monotonic()
    if needed > left:
        there = f"{rough_time(left)} of it was left" if left > 0 else "nothing of it was left"
        takes = f"it takes {rough_time(needed)}" if needed else "nobody knows how long it takes"
        raise OverBudget(f"left out by the budget of {context.study.budget:g} h: {takes} and {there}")


def _seconds(study: Study, root: Path, position: Position, verb: str = "") -> float:
    """About how long a training takes from this stage on; what nobody knows counts as nothing."""
    estimates = Estimates(study, root)
    own = [one for one in stage_ids(study) if one.position == position]
    later = own[[one.verb for one in own].index(verb) if verb else 0 :]
    return sum(seconds for one in later if (seconds := estimates.seconds(one)) is not None)
