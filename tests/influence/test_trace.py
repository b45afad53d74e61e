"""A finished training, traced: rows, measures, its trajectory, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from traces import trace_of

from holdfast.config.jobs import Select, Trace
from holdfast.config.measurement import LEAST_PROMPTS, Influence
from holdfast.config.refs import FileRef, ModelRef
from holdfast.data.shards import read_questions
from holdfast.influence.samples import SampleEncoder
from holdfast.influence.selection import chosen
from holdfast.influence.trace import caveats
from holdfast.influence.trajectory import Trajectory
from holdfast.journal import METRICS, read_lines
from holdfast.stages.on_policy import advantages, rollouts

SETTINGS = Influence(samples=6, questions=4, batch_size=4)
SFT = {"method": "sft", "source": "teacher", "trainer": {"max_steps": 4, "learning_rate": 1e-3}}
TEACHER = {**SFT, "trainer": {**SFT["trainer"], "per_device_train_batch_size": 4, "lr_scheduler_type": "constant"}}


@pytest.fixture(scope="module")
def trained(train_job: Callable[..., Any], run_stage: Callable[..., Path], tmp_path_factory: Any) -> Path:
    """Four supervised steps, kept every two, with the optimizer's second moments."""
    job = train_job(TEACHER, keep=2).model_copy(update={"keep_moments": True})
    return run_stage(job, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def traced(trained: Path, run_stage: Callable[..., Path], tmp_path_factory: Any) -> Path:
    return run_stage(trace_of(trained), tmp_path_factory.mktemp("traced"))


def logged(out: Path) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for line in read_lines(out / "metrics.jsonl"):
        if "metrics" in line:
            found.setdefault(line["step"], {}).update(line["metrics"])
    return found


def test_every_checkpoint_sample_and_block_has_a_row(traced: Path, tiny_data: Any) -> None:
    rows = pq.read_table(traced / "influence.parquet").to_pylist()
    assert {row["step"] for row in rows} == {0, 2, 4}
    first = [question.id for question in read_questions(tiny_data.path / "target-train.parquet", 6)]
    assert sorted({row["prompt"] for row in rows}) == sorted(first)
    blocks = {row["block"] for row in rows}
    assert "layers.0" in blocks
    assert not any(block.startswith("visual") for block in blocks)
    assert len(rows) == 3 * 6 * len(blocks)
    assert {row["source"] for row in rows} == {"teacher"}
    texts = pq.read_table(traced / "sources.parquet").to_pylist()
    assert all("</think>" in row["text"] for row in texts)
    assert all(row["certainty"] > 0 and row["error"] > 0 and row["kernel2/color/0"] > 0 for row in texts)


def test_measures_are_logged_by_source_and_benchmark_at_their_steps(traced: Path) -> None:
    steps = logged(traced)
    for benchmark in ("jigsaw", "color", "count"):
        for measure in ("norm", "cosine", "dot", "lbk", "kernel"):
            assert all(np.isfinite(steps[step][f"influence/teacher/{benchmark}/{measure}"]) for step in (0, 2, 4))
    assert "influence/teacher/color/exchange" in steps[0]
    assert "influence/teacher/jigsaw/exchange" not in steps[0]
    assert "influence/teacher/color/adam_exchange" not in steps[0]
    assert "influence/teacher/color/adam_exchange" in steps[4]
    assert steps[0]["influence/teacher/perplexity"] > 1


def test_measures_are_what_the_rows_add_up_to(traced: Path) -> None:
    table = pq.read_table(traced / "influence.parquet").to_pandas()
    at = table[table.step == 2]
    tokens = at.groupby("sample").tokens.first().sum()
    dot = (at["dot/color/a"] + at["dot/color/b"]).sum() / 2 / tokens
    assert logged(traced)[2]["influence/teacher/color/dot"] == pytest.approx(dot)


def test_dots_summed_along_training_are_weighted_by_rate_and_steps(traced: Path) -> None:
    steps = logged(traced)
    name = "influence/teacher/color"
    expected = 1e-3 * 2 * (steps[0][f"{name}/dot"] + steps[2][f"{name}/dot"])
    assert [steps[step].get("influence/teacher/stride") for step in (0, 2, 4)] == [pytest.approx(2e-3)] * 2 + [None]
    assert steps[4][f"{name}/tracin"] == pytest.approx(expected)
    assert steps[4][f"{name}/adam_tracin"] == pytest.approx(1e-3 * 2 * steps[2][f"{name}/adam_dot"])


def test_perplexity_is_that_under_the_checkpoint_and_under_the_stages_start(traced: Path) -> None:
    steps = {step: found for step, found in logged(traced).items() if "influence/teacher/perplexity" in found}
    now = [found["influence/teacher/perplexity"] for found in steps.values()]
    start = [found["influence/teacher/perplexity_start"] for found in steps.values()]
    assert start == [pytest.approx(now[0])] * 3
    assert now[2] < now[0]


def test_each_sample_keeps_what_the_start_made_of_it(traced: Path) -> None:
    rows = pq.read_table(traced / "influence.parquet").to_pylist()
    at_first = {row["sample"]: row["loglik"] for row in rows if row["step"] == 0}
    texts = pq.read_table(traced / "sources.parquet").to_pylist()
    assert {(row["step"], row["sample"]): row["loglik_start"] for row in texts} == {
        (step, sample): loglik for step in (0, 2, 4) for sample, loglik in at_first.items()
    }


def test_the_reference_codes_lbk_sums_changes_over_tokens(processor: Any, tiny_data: Any) -> None:
    asked = read_questions(tiny_data.path / "target-test.parquet", 2)
    encoder = SampleEncoder(processor, 2)
    given = encoder.samples([(asked[0], "3", 1.0), (asked[1], "3 1 2", 1.0)])
    trajectory = Trajectory({"color": given[:1], "jigsaw": given}, encoder)
    trajectory._add_rows((0, 4), np.array([9.0, -1.0, 2.0]), np.zeros(3), np.zeros(3))
    lengths = [len(sample.completion) for sample in given]
    assert trajectory.changes("jigsaw", 4).tolist() == [-lengths[0], 2 * lengths[1]]


def test_the_trajectory_is_predicted_to_third_order(train_job: Any, run_stage: Any, tmp_path: Path) -> None:
    """With steps so small that the order shows, whatever the random weights are."""
    gentle = {**TEACHER, "trainer": {**TEACHER["trainer"], "learning_rate": 2e-4}}
    out = run_stage(train_job(gentle, keep=2), tmp_path / "trained")
    traced = run_stage(trace_of(out), tmp_path / "traced")
    rows = pq.read_table(traced / "path.parquet").to_pylist()
    assert {(row["start"], row["step"]) for row in rows} == {(0, 2), (2, 4)}
    measured = np.array([row["measured"] for row in rows])
    missed = {kind: np.abs(np.array([row[kind] for row in rows]) - measured) for kind in ("first_order", "trapezoid")}
    assert missed["trapezoid"].mean() < missed["first_order"].mean() / 2
    assert logged(traced)[4]["influence/teacher/pearson_trapezoid"] > 0.9


def test_tracing_twice_gives_the_same_bytes(traced: Path, trained: Path, run_stage: Any, tmp_path: Path) -> None:
    again = run_stage(trace_of(trained), tmp_path / "again")
    digests = [json.loads((out / "result.json").read_text())["files"] for out in (traced, again)]
    # The journal has times.
    assert digests[0] | {METRICS: ""} == digests[1] | {METRICS: ""}


def test_an_adapter_is_traced_in_its_own_space(train_job: Any, run_stage: Any, tmp_path: Path) -> None:
    stage = {**TEACHER, "lora": {"r": 2, "target_modules": ["q_proj", "down_proj"]}}
    out = run_stage(train_job(stage, keep=2), tmp_path / "adapter")
    traced = run_stage(trace_of(out), tmp_path / "traced")
    steps = logged(traced)
    assert steps[0]["influence/teacher/color/norm"] > 0
    assert steps[4]["influence/teacher/pearson_trapezoid"] > 0.9


def test_a_reinforced_stage_is_traced_through_its_own_rollouts(
    train_job: Any, run_stage: Any, schooled: ModelRef, tmp_path: Path
) -> None:
    trainer = {"max_steps": 1, "per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 16}
    stage = {"method": "grpo", "trainer": {**trainer, "beta": 0.1, "num_iterations": 2}}
    out = run_stage(train_job(stage, start=schooled), tmp_path / "reinforced")
    job = trace_of(out, influence=SETTINGS.model_copy(update={"samples": 8}))
    traced = run_stage(job, tmp_path / "traced")
    rows = pq.read_table(traced / "influence.parquet").to_pandas()
    of_prompt = rows[rows.step == 0].groupby("sample").first().groupby("prompt").weight
    assert (of_prompt.count() == 4).all()
    assert len(of_prompt) == LEAST_PROMPTS
    assert of_prompt.sum().abs().max() < 1e-6
    steps = logged(traced)
    first, last = ({key.split("/")[-1]: value for key, value in steps[step].items()} for step in (0, 1))
    assert first["perplexity_start"] == pytest.approx(first["perplexity"], rel=1e-4)
    assert last["perplexity_start"] != last["perplexity"]
    said = pq.read_table(traced / "sources.parquet").to_pandas().query("step == 1").set_index("sample").loglik_start
    tokens = rows[rows.step == 1].groupby("sample").tokens.first()
    assert last["perplexity_start"] == pytest.approx(np.exp(-said.sum() / tokens.sum()))
    notes = json.loads((traced / "result.json").read_text())["notes"]
    assert "KL penalty" in str(notes)
    assert "clipping" in str(notes)


def test_what_the_linear_form_leaves_out_of_a_reinforced_stage_is_named(train_job: Any, schooled: ModelRef) -> None:
    def notes(**trainer: Any) -> str:
        train = train_job({"method": "grpo", "trainer": trainer}, start=schooled)
        return str(caveats(Trace(train=train, data=train.data, kept=(), influence=SETTINGS)))

    assert notes() == notes(steps_per_generation=4, gradient_accumulation_steps=4) == "{}"
    assert "clipping" in notes(steps_per_generation=4, gradient_accumulation_steps=2)
    assert "loss grpo" in notes(loss_type="grpo")
    assert "temperature (0.7)" in notes(temperature=0.7)


def test_rollouts_leave_torchs_random_state_alone(train_job: Any, schooled: ModelRef, tiny_data: Any) -> None:
    from holdfast.models.load import load_model, load_processor

    stage = {"method": "grpo", "trainer": {"num_generations": 2, "max_completion_length": 8}}
    job = Trace(train=train_job(stage, start=schooled), data=tiny_data, kept=(), influence=SETTINGS)
    speak = rollouts(job, load_processor(schooled))
    asked = read_questions(tiny_data.path / "target-train.parquet", 2)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    said = [speak(load_model(schooled), asked, 4) for _ in range(2)]
    assert said[0] == said[1]
    assert all(len(ids) <= 8 for _, ids, _ in said[0])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("greedy", [{"top_k": 1}, {"generation_kwargs": {"top_k": 1}}, {"top_p": 1e-6}])
def test_rollouts_are_drawn_as_the_training_draws_them(
    train_job: Any, schooled: ModelRef, tiny_data: Any, greedy: dict[str, Any]
) -> None:
    from holdfast.models.load import load_model, load_processor

    def drawn(**sampling: Any) -> list[set[tuple[int, ...]]]:
        trainer = {"num_generations": 4, "max_completion_length": 8, "temperature": 2.0, **sampling}
        train = train_job({"method": "grpo", "trainer": trainer}, start=schooled)
        job = Trace(train=train, data=tiny_data, kept=(), influence=SETTINGS)
        said = rollouts(job, load_processor(schooled))(load_model(schooled), asked, 8)
        return [{tuple(ids) for other, ids, _ in said if other.id == question.id} for question in asked]

    asked = read_questions(tiny_data.path / "target-train.parquet", 2)
    assert [len(different) for different in drawn(**greedy)] == [1, 1]
    assert max(len(different) for different in drawn()) > 1


def test_users_suppressed_tokens_stand_beside_the_placeholders(schooled: ModelRef) -> None:
    from holdfast.models.load import load_model, placeholder_ids, without_placeholders

    config = load_model(schooled).config
    suppressed = without_placeholders(config, {"suppress_tokens": [1], "top_k": 3})
    assert suppressed == {"top_k": 3, "suppress_tokens": sorted({1, *placeholder_ids(config)})}


def test_a_rollout_that_was_cut_off_is_measured_without_an_end(processor: Any, tiny_data: Any) -> None:
    [question] = read_questions(tiny_data.path / "target-train.parquet", 1)
    end = processor.tokenizer.eos_token_id
    whole = processor.tokenizer("3 1", add_special_tokens=False)["input_ids"]
    cut, ended = SampleEncoder(processor, 2).rollout_samples([(question, whole, 1.0), (question, [*whole, end], -1.0)])
    assert (cut.completion, ended.completion) == (whole, [*whole, end])
    assert cut.text == ended.text
    assert ended.weight == -1


def test_rollouts_are_rewarded_as_at_their_step_of_the_training(
    train_job: Any, schooled: ModelRef, tiny_data: Any, tmp_path: Path
) -> None:
    from holdfast.models.load import load_model, load_processor

    trainer = {"num_generations": 4, "max_completion_length": 16}
    stage = {"method": "grpo", "rewards": {"score": {"warm_up": 10}}, "trainer": {**trainer, "scale_rewards": "none"}}
    job = Trace(train=train_job(stage, start=schooled), data=tiny_data, kept=(), influence=SETTINGS)
    speak, model = rollouts(job, load_processor(schooled)), load_model(schooled)
    asked = read_questions(tiny_data.path / "target-train.parquet", 4)
    cold, half, warm = ([weight for _, _, weight in speak(model, asked, 16, step)] for step in (0, 5, 20))
    assert set(cold) == {0.0}
    assert max(warm) > 0
    assert half == pytest.approx([weight / 2 for weight in warm])


def test_advantages_are_trls() -> None:
    rewards = np.array([[1.0, 3.0], [2.0, 2.0]])
    assert advantages(rewards, "group")[0] == pytest.approx(np.array([-1, 1]) / (2**0.5 + 1e-4))
    assert (advantages(rewards, "group")[1] == 0).all()
    assert advantages(rewards, "none")[0].tolist() == [-1.0, 1.0]
    assert advantages(rewards, "batch")[0] == pytest.approx(np.array([-1, 1]) / (rewards.std(ddof=1) + 1e-4))


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_rollouts_that_are_rewarded_alike_have_no_advantage_at_all(scale: str) -> None:
    assert np.full((1, 6), 0.7).mean() != 0.7
    assert (advantages(np.full((1, 6), 0.7), scale) == 0).all()


def test_a_changed_checkpoint_is_refused_by_name(trained: Path, run_stage: Any, tmp_path: Path) -> None:
    kept = tuple(ref.model_copy(update={"digest": "0" * 64}) for ref in trace_of(trained).kept)
    with pytest.raises(SystemExit):
        run_stage(trace_of(trained, kept=kept), tmp_path / "out")
    message = json.loads((tmp_path / "out" / "error.json").read_text())["message"]
    assert "step 2 is not the one that was recorded" in message


def test_changed_second_moments_are_refused_by_name(trained: Path, run_stage: Any, tmp_path: Path) -> None:
    moments = tuple(ref.model_copy(update={"digest": "0" * 64}) for ref in trace_of(trained).moments)
    with pytest.raises(SystemExit):
        run_stage(trace_of(trained, moments=moments), tmp_path / "out")
    assert "second moments" in json.loads((tmp_path / "out" / "error.json").read_text())["message"]


def test_a_part_of_the_samples_is_chosen_in_their_order() -> None:
    values = np.array([[3.0, 0.1, 5.0, -1.0], [1.0, -0.5, 4.0, -2.0], [2.0, 0.9, 6.0, 0.0], [np.nan] * 4])
    assert chosen(values, "magnitude", 2, seed=0) == [1, 2]
    assert chosen(values, "direction", 2, seed=0) == [0, 2]
    assert chosen(values, "loss", 2, seed=0) == [0, 1]
    assert chosen(values, "ledger", 2, seed=0) == [0, 2]
    assert chosen(values, "random", 4, seed=0) == [0, 1, 2]
    drawn = chosen(values, "random", 2, seed=0)
    assert drawn == chosen(values, "random", 2, seed=0) == sorted(drawn)
    assert {tuple(chosen(values, "random", 2, seed=seed)) for seed in range(20)} != {tuple(drawn)}


def test_a_selection_keeps_the_samples_whose_gradients_point_along_the_priors(
    train_job: Any, run_stage: Any, tmp_path: Path
) -> None:
    train = train_job({**TEACHER, "select": {"by": "direction", "keep": 0.25}})
    out = run_stage(Select(train=train, data=train.data, influence=SETTINGS), tmp_path / "selected")
    kept = pq.read_table(out / "samples.parquet").to_pandas()
    assert len(kept) == 6
    whole = run_stage(
        Select(
            train=train_job({**TEACHER, "select": {"by": "magnitude", "keep": 0.99}}),
            data=train.data,
            influence=SETTINGS,
        ),
        tmp_path / "whole",
    )
    everything = pq.read_table(whole / "samples.parquet").to_pandas()
    left = everything[~everything.id.isin(kept.id)]
    assert kept.direction.min() >= left.direction.max()
    refs = FileRef(path=out / "samples.parquet", digest="x")
    from holdfast.data.training_set import train_rows

    assert [row.question.id for row in train_rows(train.model_copy(update={"samples": refs}))] == kept.id.tolist()
