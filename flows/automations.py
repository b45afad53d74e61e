"""Prefect's automations: which flow runs the watch is sent to look after."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import EventTrigger, Posture

from flows.deployments import TAG

ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Crashed", "Cancelled", "AwaitingRetry")}
HEARTBEAT = "prefect.flow-run.heartbeat"
BEGINS = "prefect.flow-run.Running"
PENDING = "prefect.flow-run.Pending"
RUN = "{{ labels['prefect.resource.id'] }}"


def automations(deployment_id: UUID, silence: timedelta, patience: timedelta) -> list[Automation]:
    """For runs that failed, that stopped sending heartbeats for `silence`, that wait for a worker after `patience`."""
    triggers = {
        "failed": _trigger({"prefect.flow-run.Failed", "prefect.flow-run.Crashed"}),
        "zombie": _trigger({HEARTBEAT, *ENDS}, after={HEARTBEAT, BEGINS}, within=silence),
        "stalled": _trigger({BEGINS, *ENDS}, after={PENDING}, within=patience),
    }
    return [
        Automation(
            name=f"holdfast: {kind} runs",
            description="Looks whether the process behind the run is gone before anything is done to it.",
            trigger=trigger,
            actions=[RunDeployment(source="selected", deployment_id=deployment_id, parameters={"flow_run": RUN})],
        )
        for kind, trigger in triggers.items()
    ]


def _trigger(expect: set[str], after: set[str] = frozenset(), within: timedelta = timedelta()) -> EventTrigger:  # type: ignore[assignment]
    return EventTrigger(
        expect=expect,
        after=set(after),
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related={"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive if within else Posture.Reactive,
        threshold=1,
        within=within,
    )


def set_automations(wanted: list[Automation]) -> None:
    """Create them on the server, in place of those that have their names."""
    with get_client(sync_client=True) as client:
        for automation in wanted:
            for old in client.read_automations_by_name(automation.name):
                client.delete_automation(old.id)
            automation.create()
