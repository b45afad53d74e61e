"""Which runs of a store are needed: what the latest reports were made from, what is registered, what still runs."""

from __future__ import annotations

from typing import Any, NamedTuple

from tasks.recorded import COMPARED
from tasks.registry import registered_checkpoints
from tasks.run_owner import owner_alive
from tasks.study_export import referred
from tasks.tracking import Store


class Needed(NamedTuple):
    """The runs of a store, and which of them somebody may still ask for."""

    runs: list[Any]
    """All, latest first."""
    reported: dict[str, Any]
    """By name, the latest run of every study, sweep and comparison that has a report."""
    referred: set[str]
    """Runs that these reports, or the model registry, refer to."""
    registered: dict[str, set[int]]
    """By run, the steps of its checkpoints that the model registry has."""
    at_work: list[str]
    """Studies and other runs whose process lives, by name."""

    def why_not(self, run: Any) -> str:
        """Why nobody needs a run any more; empty where somebody does, or might."""
        study = run.data.tags.get("holdfast.study") or run.info.run_name
        report = self.reported.get(study)
        if report is None or run.info.run_id in self.referred or run.info.status == "RUNNING":
            return ""
        if run.info.end_time is None or run.info.end_time >= report.info.start_time:
            # Of a study that has gone on since, whose next report may be made from it.
            return ""
        return f"the latest report of {study} is made without it"


def needed_runs(store: Store) -> Needed:
    """Look through the whole store."""
    runs = store.search("")
    reported: dict[str, Any] = {}
    for run in runs:
        if run.info.run_name not in reported and _has_report(store, run):
            reported[run.info.run_name] = run
    found = {run.info.run_id for run in reported.values()} | set(referred(store, reported.values()))
    registered = registered_checkpoints(store)
    alive = [run for run in runs if run.info.status == "RUNNING" and _alive(run)]
    at_work = sorted({run.data.tags.get("holdfast.study") or run.info.run_name for run in alive})
    return Needed(runs, reported, found | set(registered), registered, at_work)


def _has_report(store: Store, run: Any) -> bool:
    above = run.data.tags.get("holdfast.kind") in ("study", "sweep", "compare")
    if not above or "holdfast.stage_key" in run.data.tags or run.info.status == "RUNNING":
        return False
    return (store.artifacts.of(run) / COMPARED).is_file()


def _alive(run: Any) -> bool:
    """A run that says nothing about its process may be anybody's."""
    return "holdfast.pid" not in run.data.tags or owner_alive(run.data.tags)
