"""Prefect's automations: which flow runs the watch is sent to look after."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from flows.deployments import TAG

ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Crashed", "Cancelled")}
HEARTBEAT = "prefect.flow-run.heartbeat"
BEGINS = "prefect.flow-run.Running"
RETRY = "prefect.flow-run.AwaitingRetry"
WAITS = {"prefect.flow-run.Late", "prefect.flow-run.Pending", RETRY}
"""Its time has come and nobody took it; somebody took it and did not begin; its process is gone."""
RUN = "{{ labels['prefect.resource.id'] }}"


def automations(deployment_id: UUID, silence: timedelta, patience: timedelta, suffix: str = "") -> list[Automation]:
    """For runs that failed, that stopped sending heartbeats for `silence`, that wait to begin after `patience`.

    `suffix` is of their names, which are one server's.
    """
    triggers = {
        "failed": _trigger({"prefect.flow-run.Failed", "prefect.flow-run.Crashed"}),
        "zombie": _trigger({HEARTBEAT, RETRY, *ENDS}, after={HEARTBEAT, BEGINS}, within=silence),
        "stalled": _trigger({BEGINS, *ENDS}, after=WAITS, within=patience),
    }
    return [
        Automation(
            name=f"holdfast: {kind} runs{suffix}",
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
    """Create them on the server, in place of others that have their names.

    One that is there stays: a new one would know nothing of the heartbeats that the old one waits for.
    """
    with get_client(sync_client=True) as client:
        for automation in wanted:
            known = client.read_automations_by_name(automation.name)
            if [_said(old) for old in known] != [_said(automation)]:
                for old in known:
                    client.delete_automation(old.id)
                automation.create()


def _said(automation: AutomationCore) -> dict[str, Any]:
    return automation.model_dump(include={"description", "trigger", "actions"})
