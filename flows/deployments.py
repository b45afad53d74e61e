"""Every flow as a Prefect deployment, by module entrypoint: one by path would put flows/ first on sys.path.

An experiment's deployment has its name; one called `any` runs what is filled in on Prefect's page.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Schedule

from flows.compare import compare
from flows.influence import influence
from flows.study import dataset, study
from flows.sweep import sweep
from flows.timetable import Timetable
from flows.watch import watch
from holdfast.config.study import Study
from holdfast.config.sweep import Sweep
from holdfast.errors import UserError

TAG = "holdfast"
"""On every flow run that the watch looks after; not on the watch's own."""
ANY = "any"


class Experiment(NamedTuple):
    """What a file describes, when it runs by itself, and the command that runs it by hand."""

    config: Study | Sweep
    timetable: Timetable | None = None
    command: str = ""


def deployments(experiments: Iterable[Experiment], root: Path) -> list[RunnerDeployment]:
    """Each experiment's, and one of each flow for anything else, in the repository `root`."""
    place = {"root": os.fspath(root)}
    made = [of_experiment(experiment, place) for experiment in experiments]
    return [*made, *(_deployment(flow, ANY, place) for flow in (study, sweep, dataset, influence, compare))]


def of_experiment(experiment: Experiment, place: dict[str, Any]) -> RunnerDeployment:
    """The deployment with an experiment's name; its page starts with the experiment's configuration.

    Without a `root` in `place`, a run works where its worker starts it.
    """
    config = experiment.config
    given = {"config": config.model_dump(mode="json"), "command": experiment.command, **place}
    schedule = experiment.timetable.schedule() if experiment.timetable else None
    return _deployment(sweep if isinstance(config, Sweep) else study, config.name, given, schedule)


def watch_deployment(root: Path, silence: float) -> RunnerDeployment:
    """What the automations run; `silence` is in seconds."""
    given = {"root": os.fspath(root), "silence": silence}
    # Prefect's types know the answer of a call from a coroutine only.
    made: Any = watch.to_deployment(name="runs", parameters=given, entrypoint_type=EntrypointType.MODULE_PATH)
    return made


def _deployment(
    flow: Flow[Any, Any], name: str, parameters: dict[str, Any], schedule: Schedule | None = None
) -> RunnerDeployment:
    made: Any = flow.to_deployment(
        name=name,
        parameters=parameters,
        schedule=schedule,
        tags=[TAG],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return made


def register(offered: Iterable[RunnerDeployment], pool: str) -> None:
    """Give deployments to a work pool, whose workers then run them. UserError without that pool."""
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            pools = ", ".join(sorted(known.name for known in client.read_work_pools())) or "none"
            raise UserError(
                f"--pool {pool}: the Prefect server has no such work pool (it has {pools}); create it with "
                f"`prefect work-pool create {pool} --type process`."
            ) from None
    for deployment in offered:
        deployment.apply(work_pool_name=pool)
