"""Files of evaluations are found by unit, and what checkpoints scored stands on the run that trained them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from stage_runs import BASE, run, use

from holdfast.config.jobs import Evaluate
from holdfast.config.refs import ModelRef
from tasks import worker
from tasks.evaluations import known_units, log_evaluation
from tasks.stage import Attempt
from tasks.tracking import Store, open_store

SCORES = {step: {"prior/mean/accuracy": 0.9 - step / 100, "forgetting/mean": step / 100} for step in (0, 3, 6)}


@pytest.fixture
def store(context) -> Store:
    return open_store(context.root)


def logged(store: Store, run_id: str) -> dict[str, list[tuple[int, float]]]:
    histories = {name: store.client.get_metric_history(run_id, name) for name in SCORES[0]}
    return {name: [(point.step, point.value) for point in history] for name, history in histories.items()}


def test_what_checkpoints_scored_stands_on_their_training_at_their_steps(context, store):
    done = run(context)
    log_evaluation(store, done.run_id, SCORES)
    expected = {name: [(step, found[name]) for step, found in SCORES.items()] for name in SCORES[0]}
    assert logged(store, done.run_id) == expected
    log_evaluation(store, done.run_id, SCORES)
    assert logged(store, done.run_id) == expected


def test_each_number_is_of_the_model_that_was_evaluated(context, store):
    done = run(context)
    log_evaluation(store, done.run_id, SCORES)
    models = store.models.ids(store.run(done.run_id))
    assert set(models) == {0, 3, 6}
    for step, model in models.items():
        metrics = {metric.key: metric.value for metric in store.client.get_logged_model(model).metrics or []}
        assert SCORES[step].items() <= metrics.items()


def test_only_what_is_new_is_logged(context, store):
    done = run(context)
    log_evaluation(store, done.run_id, SCORES)
    rounded = {step: {name: value * (1 + 1e-7) for name, value in found.items()} for step, found in SCORES.items()}
    more = {step: {**found, "prior/count/accuracy": 0.5} for step, found in rounded.items()}
    log_evaluation(store, done.run_id, more)
    assert [len(points) for points in logged(store, done.run_id).values()] == [3, 3]
    assert len(store.client.get_metric_history(done.run_id, "prior/count/accuracy")) == 3
    # A divergence is a small difference of large numbers.
    log_evaluation(store, done.run_id, {6: {"kl/target": 2e-4}})
    log_evaluation(store, done.run_id, {6: {"kl/target": 2.002e-4}})
    assert len(store.client.get_metric_history(done.run_id, "kl/target")) == 1


def test_two_studies_that_log_a_trainings_scores_at_once_log_them_once(context, store):
    done = run(context)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: log_evaluation(store, done.run_id, SCORES), range(4)))
    assert [len(points) for points in logged(store, done.run_id).values()] == [3, 3]


def test_a_runs_replicate_is_a_tag(context, store):
    done = run(context)
    assert done.replicate == 1
    assert store.run(done.run_id).data.tags["holdfast.replicate"] == "1"


def evaluation(model: ModelRef, name: str) -> Evaluate:
    file = f"records/step-{model.step:06d}/{name}.parquet"
    return Evaluate(models=(model,), base=BASE, limit=8, validation=8, units={f"{name} of {model.digest}": file})


def test_units_are_found_by_model_and_only_while_they_are_as_they_were_left(context, store, monkeypatch):
    use(monkeypatch, "records")
    model, other = (ModelRef(path="model", digest=letter * 64, step=3) for letter in "ab")
    for asked, name in ((model, "color"), (model, "count"), (other, "color")):
        Attempt(evaluation(asked, name), context).run()
    found = known_units(store, [model])
    assert found.keys() == {f"{name} of {model.digest}" for name in ("color", "count")}
    assert all(unit.path.is_file() for unit in found.values())
    found[f"color of {model.digest}"].path.write_bytes(b"changed")
    assert known_units(store, [model]).keys() == {f"count of {model.digest}"}
    assert known_units(store, [model, other]).keys() == {f"count of {model.digest}", f"color of {other.digest}"}


def test_an_evaluation_whose_record_is_broken_is_asked_again(context, store, monkeypatch):
    use(monkeypatch, "records")
    model = ModelRef(path="model", digest="a" * 64, step=3)
    done = Attempt(evaluation(model, "color"), context).run()
    assert known_units(store, [model])
    record = done.path / "job.json"
    # Two bytes less of white space, and still a job.
    record.write_text(record.read_text().replace(", ", ",", 2).replace(": ", ":", 2))
    assert known_units(store, [model]) == {}


def test_what_a_killed_command_left_of_a_finished_evaluation_goes(context, store, monkeypatch):
    """It was killed after its run had finished; whose units are found is not run again."""
    use(monkeypatch, "records")
    model = ModelRef(path="model", digest="a" * 64, step=3)
    done, never = evaluation(model, "color"), evaluation(model, "count")
    run_id = Attempt(done, context).run().run_id
    work = worker.work_directory(context.root)
    left = work / store.run(run_id).data.tags["holdfast.stage_key"]
    left.mkdir()
    for content in ("torn", never.model_dump_json()):
        (left / "job.json").write_text(content)
        known_units(store, [model])
        assert left.is_dir(), "it is not known to be found"
    (left / "job.json").write_text(done.model_dump_json())
    known_units(store, [model])
    assert not left.exists()
