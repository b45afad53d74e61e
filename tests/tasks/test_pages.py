"""Stores of more than a page of anything are read to their end."""

import pytest

from holdfast.config.results import Checkpoint
from tasks import paging
from tasks.exported_runs import described
from tasks.registry import aliases, registered_checkpoints
from tasks.tracking import Point, open_store


def test_runs_models_and_versions_come_from_all_pages(root, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paging, "PAGE", 3)
    store = open_store(root)
    ids = [store.begin(f"study-{number % 5}", f"run {number}", {"holdfast.stage_key": "k"}) for number in range(10)]
    assert [run.info.run_id for run in store.with_key("k")] == ids[::-1]
    assert {run.info.run_id for run in store.search("")} == set(ids)
    assert {run.info.run_id for run in store.with_ids([*ids[:7], "0" * 32])} == set(ids[:7])
    assert store.run(ids[0][:12]).info.run_id == ids[0]
    for step in range(8):
        store.models.keep(ids[0], Checkpoint(step=step, path=f"checkpoints/{step}", digest=str(step)))
    assert set(store.models.ids(store.run(ids[0]))) == set(range(8))
    for step in range(8):
        store.models.register("study", f"alias-{step % 2}", ids[0], step)
    store.models.register("study", "first", ids[0], 0)
    assert registered_checkpoints(store) == {ids[0]: set(range(8))}
    assert aliases(store, "study") == {"alias-0": (ids[0], 6), "alias-1": (ids[0], 7), "first": (ids[0], 0)}
    for run_id in ids[5:]:
        store.end(run_id, "FINISHED")
        store.delete(store.run(run_id))
    assert {run.info.run_id for run in store.deleted()} == set(ids[5:])
    assert len(store.search("")) == 5


def test_all_of_a_long_history_is_exported(root):
    store = open_store(root)
    run_id = store.begin("study", "long", {})
    store.log(run_id, [Point("train/loss", float(step), step, 1.0) for step in range(2500)])
    store.end(run_id, "FINISHED")
    assert [one.step for one in described(store, store.run(run_id), {}).metrics] == list(range(2500))
