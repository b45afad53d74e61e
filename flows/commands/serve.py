"""Offer flows to a Prefect server: run here on request and by schedule, or given to a work pool's workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from prefect.settings import get_current_settings

from flows.automations import automations, set_automations
from flows.commands.experiment import load_experiment, load_timetable
from flows.commands.server import check_server
from flows.deployments import Experiment, deployments, of_experiment, register, watch_deployment
from holdfast.errors import UserError
from tasks.run_owner import HEARTBEAT_TIMEOUT
from tasks.tracking import open_store

PATIENCE = timedelta(minutes=15)
"""For a worker to begin a run that it took; pulling an image takes minutes."""


def read_experiments(
    commands: Mapping[Path, str], overrides: Sequence[str], cron: str | None = None
) -> list[Experiment]:
    """What files describe, each with its command. UserError on anything wrong, where two of them have one name, and
    where there is none for `cron`."""
    if cron is not None and not commands:
        raise UserError(f"--cron: {cron!r} schedules nothing without an experiment; name its FILE or leave --cron out.")
    found: dict[str, Path] = {}
    experiments = []
    for file, command in commands.items():
        config, timetable = load_experiment(file, overrides), load_timetable(file, overrides, cron)
        if config.name in found:
            raise UserError(f"{file}: name: {found[config.name]} has the same, {config.name}; change one of them.")
        found[config.name] = file
        experiments.append(Experiment(config, timetable, command))
    return experiments


def serve_experiments(experiments: Sequence[Experiment], limit: int | None = None) -> None:
    """Run them, and any other flow, whenever the Prefect server asks, until stopped. UserError without a server."""
    _require_servers()
    root = Path.cwd()
    watch = _watch(root, HEARTBEAT_TIMEOUT)
    serve(*deployments(experiments, root), watch, limit=limit)


def serve_watch(silence: float) -> None:
    """Look after runs until stopped. UserError without a server."""
    _require_servers()
    serve(_watch(Path.cwd(), silence))


def deploy_experiments(experiments: Sequence[Experiment], pool: str) -> list[str]:
    """Give them to a work pool; returns the deployments' names. UserError without a server or the pool."""
    _require_servers(store=False)
    offered = [of_experiment(experiment, {}) for experiment in experiments]
    register(offered, pool)
    return [deployment.full_name for deployment in offered]


def _watch(root: Path, silence: float) -> RunnerDeployment:
    deployment = watch_deployment(root, silence)
    applied: Any = deployment.apply()
    set_automations(automations(applied, timedelta(seconds=silence), PATIENCE))
    return deployment


def _require_servers(store: bool = True) -> None:
    if not get_current_settings().api.url:
        raise UserError(
            "PREFECT_API_URL: is not set; start a server with `make ui` and set its address, ending in /api."
        )
    check_server()
    if store:
        open_store(Path.cwd())
