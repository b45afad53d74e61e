"""One fault from its draw to its outcome."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from faults import judge
from faults.bed import Bed, Hangs, Running
from faults.commands import command
from faults.commands import strike as strike_command
from faults.draw import STAGES, Fault
from faults.inject import Struck, Unable, strike
from faults.judge import Store

SAME, REMEDIED, UNABLE = "same results", "refused in one sentence; same results after its remedy", "not done here"
REFUSED = "refused in one sentence, nothing changed"
BEYOND = "not survived: the database lost what takes a broken transaction back"
FAILED = "failed"


def outcome(bed: Bed, fault: Fault, short: bool = False) -> dict[str, Any]:
    """Let a fault happen, give the same command again, and say what came of it.

    `short`: only up to the fault's stage, which the following ones see no other difference of.
    """
    began = time.monotonic()
    whole = "command" if fault.layer == "study" else STAGES[-1]
    until = fault.stage if short else whole
    said: dict[str, Any] = {**fault._asdict(), "ended": "", "problems": []}
    try:
        struck = strike_command(bed, fault) if until == "command" else strike(bed, fault, until)
        said["ended"] = struck.ended
        said["outcome"], said["problems"] = _again(bed, struck, until)
        if struck.hot and "," in fault.way and said["outcome"] == FAILED:
            said["outcome"] = BEYOND
    except Unable as error:
        said["outcome"], said["problems"] = UNABLE, [str(error)]
    except (Hangs, AssertionError, FileNotFoundError, ValueError) as error:
        said["outcome"], said["problems"] = FAILED, [f"{type(error).__name__}: {error}"]
    return {**said, "seconds": round(time.monotonic() - began, 1)}


def _again(bed: Bed, struck: Struck, until: str) -> tuple[str, list[str]]:
    """The outcome of the same command, and what is wrong."""
    store = Store(bed.root / "mlruns" / "mlflow.db")
    trained = set() if struck.corrupted or struck.hot else _finished(store)
    wrong = [f"a traceback where a sentence belongs: {struck.said[-2000:]}"] if "Traceback" in struck.said else []
    outcome, running = SAME, _started(bed, until)
    code = running.wait()
    if code == "2" and (remedy := _remedy(running)) is not None:
        remedy()
        outcome, running = REMEDIED, _started(bed, until)
        code = running.wait()
    if code == "2" and "Traceback" not in running.said and "is damaged" in running.said:
        return REFUSED, wrong
    if code != "0":
        return FAILED, [*wrong, f"it ended with {code}", running.said[-3000:]]
    wrong += [*judge.problems(bed.root, store, struck.corrupted), *judge.run_twice(store, struck.corrupted)]
    wrong += [f"{run_id[:6]} was lost" for run_id in trained if run_id not in _finished(store)]
    wrong += _differences(_undisturbed(bed, until), judge.results(store), struck.corrupted)
    return (FAILED if wrong else outcome), wrong


def _started(bed: Bed, until: str) -> Running:
    return command(bed) if until == "command" else bed.start(until)


def _remedy(running: Running) -> Callable[[], None] | None:
    """What a refusal says to do, if it says something that a program can."""
    found = re.search(r"holdfast: (/.+?): differs from data\.dvc; remove it and run again", running.said)
    return Path(found[1]).unlink if found else None


def _finished(store: Store) -> set[str]:
    return {stage.run_id for stage in judge.finished(store)}


@cache
def _undisturbed(bed: Bed, until: str) -> dict[str, Any]:
    """What the study came to where nothing happened."""
    bed_root = bed.snapshot(until)
    return judge.results(Store(bed_root / "mlruns" / "mlflow.db", moved=(bed.root, bed_root)))


def _differences(wanted: dict[str, Any], found: dict[str, Any], corrupted: bool) -> list[str]:
    missing, new = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    if corrupted:
        # Only what is missing of a corrupted evaluation is asked again, which is another stage; where these are the
        # base's own samples, they have other last digits, and what is measured by them is another stage as well.
        again = {key for key in new if found[key]["kind"] == "evaluate"}
        replaced = sorted(key for key in missing if wanted[key]["kind"] == "evaluate")[: len(again)]
        missing, new = missing - set(replaced), new - again
    wrong = [f"the stage {key[:6]} is {'missing' if key in missing else 'new'}" for key in (*missing, *new)]
    for key in wanted.keys() & found.keys():
        names = [name for name, value in wanted[key].items() if found[key][name] != value]
        if corrupted and wanted[key]["kind"] == "evaluate":
            # What its broken record does not name is asked again, in another stage; the record stays broken.
            names = [name for name in names if name != "files"]
        wrong += [f"{wanted[key]['kind']}: another {name}" for name in names]
    return wrong
