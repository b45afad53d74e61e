"""Every flow as a Prefect deployment, by module entrypoint: one by path would put flows/ first on sys.path.

An experiment's deployment has its name; one called `any` runs what is filled in on Prefect's page. Whoever serves a
name takes its runs, so no deployment says in which directory: a run works where the process that takes it was started.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
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


def deployments(experiments: Iterable[Experiment]) -> list[RunnerDeployment]:
    """Each experiment's, and one of each flow for anything else."""
    made = [of_experiment(experiment) for experiment in experiments]
    return [*made, *(_deployment(flow, ANY, {}) for flow in (study, sweep, dataset, influence, compare))]


def of_experiment(experiment: Experiment) -> RunnerDeployment:
    """The deployment with an experiment's name; its page starts with the experiment's configuration."""
    config = experiment.config
    given = {"config": config.model_dump(mode="json"), "command": experiment.command}
    schedule = experiment.timetable.schedule() if experiment.timetable else None
    return _deployment(sweep if isinstance(config, Sweep) else study, config.name, given, schedule)


def watch_deployment(name: str, silence: float) -> RunnerDeployment:
    """What the automations run; `silence` is in seconds."""
    given = {"silence": silence}
    # Prefect's types know the answer of a call from a coroutine only.
    made: Any = watch.to_deployment(name=name, parameters=given, entrypoint_type=EntrypointType.MODULE_PATH)
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


def pause(offered: Iterable[RunnerDeployment]) -> None:
    """Stop the schedules of what was served here; a work pool's workers still run what was given to the pool."""
    with get_client(sync_client=True) as client:
        for deployment in offered:
            if deployment.schedules:
                with suppress(ObjectNotFound):
                    known = client.read_deployment_by_name(deployment.full_name)
                    if known.work_pool_name is None:
                        client.pause_deployment(known.id)
