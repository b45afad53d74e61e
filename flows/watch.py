"""Look after a flow run that ended badly, stopped sending heartbeats or does not begin; Prefect's automations call it.

Heartbeats are lost for many reasons, so a run is marked only when the process behind it is gone. What is known of that
stands on its MLflow runs.

Annotations are evaluated here: a Prefect runner cannot resolve a flow's postponed ones.
"""

import time
from pathlib import Path
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import AwaitingRetry, Cancelled, Crashed

from tasks import progress
from tasks.run_owner import HEARTBEAT, HEARTBEAT_TAG, HEARTBEAT_TIMEOUT, owner_alive, owner_here
from tasks.tracking import Store, open_store

WAITS = ("Late", "Pending", "AwaitingRetry")
"""Names of states in which a run should begin by itself; it has no process that could be looked at."""
MOST_RUNS = 3
"""How often a run is begun, the first time included, before it is left for a person."""


@flow(name="watch", flow_run_name="look after {flow_run}", persist_result=False)
def watch(flow_run: str, silence: float = HEARTBEAT_TIMEOUT, root: Path = Path()) -> str:
    """Say what became of a flow run (its id, as events have it too); one whose process is gone is begun again.

    After `silence` seconds without a heartbeat of its runs in MLflow, a process of another machine counts as gone.
    """
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(flow_run.removeprefix("prefect.flow-run.")))
        said = _look_after(run, client, silence, root.resolve())
    progress.log(said)
    return said


def _look_after(run: FlowRun, client: SyncPrefectClient, silence: float, root: Path) -> str:
    state = run.state
    name = f"{run.name} ({run.id})"
    if state is not None and state.name in WAITS:
        pool = f"a worker of {run.work_pool_name}" if run.work_pool_name else "`holdfast serve`"
        since = f"{state.name} since {state.timestamp:%Y-%m-%d %H:%M:%S} UTC"
        return f"{name}: waits to begin, {since}; look whether {pool} runs, reaches the server and has room."
    if state is None or state.type in (StateType.SCHEDULED, StateType.COMPLETED, StateType.PAUSED):
        return f"{name}: is {state.name if state else 'new'}; nothing to do."
    store = open_store(root)
    if state.is_final():
        reaped = store.reap(silence)
        return f"{name}: {state.name}: {state.message or 'without a word'}; {len(reaped)} of its runs were left open."
    alive = _owner_alive(store, f"tags.`prefect.flow_run_id` = '{run.id}'", silence)
    if alive is None:
        return f"{name}: no run in MLflow tells which process it is, so it is left alone; cancel it if it is dead."
    if alive:
        return f"{name}: sends no heartbeats to Prefect, but its process lives."
    store.reap(silence)
    return f"{name}: {_mark(run, client)}"


def _owner_alive(store: Store, query: str, silence: float) -> bool | None:
    """Whether the process that began these runs lives; None where none tells its process.

    One on another machine has beaten a while ago, so its next heartbeat is waited for.
    """
    first = None
    while True:
        owners = store.owners(query)
        if not owners:
            return None
        living = [tags for tags in owners if owner_alive(tags, silence)]
        beat = max((tags.get(HEARTBEAT_TAG, "") for tags in living), default="")
        first = first or beat
        if not living or beat != first or any(map(owner_here, living)):
            return bool(living)
        time.sleep(HEARTBEAT / 3)


def _mark(run: FlowRun, client: SyncPrefectClient) -> str:
    assert run.state is not None
    if run.state.type == StateType.CANCELLING:
        client.set_flow_run_state(run.id, Cancelled(message="its process is gone"))
        return "its process is gone; cancelled."
    client.set_flow_run_state(run.id, Crashed(message="its process is gone"))
    if run.run_count >= MOST_RUNS or run.deployment_id is None:
        return f"its process is gone; begun {run.run_count} times, left as it is."
    client.set_flow_run_state(run.id, AwaitingRetry(message="its process is gone; whoever takes it next continues it"))
    return "its process is gone; the next worker continues it."
