import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from page_tags import Tags
from synthetic_runs import FINAL_MODELS, HOSTILE, finished_study, five_arms, traced_study

from holdfast.analysis.dot_product import dot_products, strides_of, tracin_sums
from holdfast.analysis.influence_runs import read_traces
from holdfast.analysis.influence_summary import significant
from holdfast.analysis.records import finished_runs
from holdfast.report.influence_charts import Bend, bend
from holdfast.report.influential import influential_samples
from holdfast.report.study import compare

SFT = {"method": "sft", "source": "answers", "trainer": {"max_steps": 40}}
SMALL = {"target": {"test": 10}, "prior": ["color", "count"]}


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    root = tmp_path_factory.mktemp("traced")
    study = five_arms(prior=["color", "count"], target={"test": 20})
    job = traced_study(root, study, FINAL_MODELS)
    compare(job, root)
    return job, root


def read(job):
    return read_traces(finished_runs(job.runs, tuple(job.study.arms)), job.study)


def page_of(root):
    return (root / "report.html").read_text()


def found_in(root):
    return json.loads((root / "summary.json").read_text())["influence"]


def section_of(root):
    page = page_of(root)
    return page[page.index('<section id="influence">') : page.index('<section id="puzzles">')]


def test_a_study_without_influence_runs_says_nothing_of_it(tmp_path):
    study = five_arms(arms={"one": [SFT]}, **SMALL)
    compare(finished_study(tmp_path, study, {"one": FINAL_MODELS["answers"]}), tmp_path)
    assert "influence" not in json.loads((tmp_path / "summary.json").read_text())
    assert "#influence" not in page_of(tmp_path)
    assert 'id="influence"' not in page_of(tmp_path)


def test_the_rest_of_the_page_and_of_the_summary_does_not_change(traced, tmp_path):
    job, root = traced
    without = tuple(run for run in job.runs if run.kind != "influence")
    compare(job.model_copy(update={"runs": without}), tmp_path)
    summaries = [json.loads((place / "summary.json").read_text()) for place in (root, tmp_path)]
    for summary in summaries:
        summary.pop("influence", None)
        summary.pop("evidence")
    assert summaries[0] == summaries[1]
    body, before = page_of(root).replace(section_of(root), ""), page_of(tmp_path)
    assert (
        body[body.index("</nav>") : body.index('id="run"')] == before[before.index("</nav>") : before.index('id="run"')]
    )


def test_the_section_is_whole_linked_and_follows_drift(traced):
    page = page_of(traced[1])
    assert Tags(page).open == []
    assert '<a href="#influence">' in page
    assert page.index('id="drift"') < page.index('id="influence"') < page.index('id="puzzles"')
    for name in FINAL_MODELS:
        assert name in section_of(traced[1])


def test_completions_are_shown_and_never_run(traced):
    tags = Tags(section_of(traced[1]))
    assert not tags.names & {"script", "think"}
    assert tags.handlers == []
    assert "&lt;script&gt;alert" in section_of(traced[1])
    assert HOSTILE not in page_of(traced[1])


def test_the_same_runs_give_the_same_bytes(traced, tmp_path):
    job, root = traced
    compare(job, tmp_path)
    for name in ("report.html", "summary.json"):
        assert (tmp_path / name).read_bytes() == (root / name).read_bytes()


def test_dots_and_cosines_from_the_rows_are_those_that_were_logged(traced):
    job, root = traced
    for trace in read(job):
        for point in found_in(root)["traces"][trace.label]["checkpoints"]:
            for name in trace.rows.benchmarks:
                logged = trace.measures[point["step"]]
                assert point["dot"][name]["value"] == pytest.approx(logged[f"{name}/dot"], rel=1e-4)
                assert point["mean_cosine"][name]["value"] == pytest.approx(logged[f"{name}/mean_cosine"], rel=1e-4)


def test_blocks_of_layers_are_added_up_and_halves_averaged(traced):
    job, _ = traced
    trace = read(job)[1]
    run = next(run for run in job.runs if run.kind == "influence" and run.arm == trace.arm.name)
    table = pq.read_table(f"{run.path}/influence.parquet").to_pylist()
    first = [row for row in table if row["step"] == 0 and row["sample"] == trace.rows.samples[0]]
    assert len(first) == 2
    by_hand = sum(row["weight"] * (row["dot/color/a"] + row["dot/color/b"]) / 2 for row in first)
    assert trace.rows.weighted_dots[0, trace.rows.benchmarks.index("color")] == pytest.approx(by_hand)
    assert trace.rows.benchmarks[0] == "jigsaw"


def test_what_is_kept_of_a_sample_stands_in_its_own_row(traced):
    job, _ = traced
    trace = read(job)[0]
    run = next(run for run in job.runs if run.kind == "influence" and run.arm == trace.arm.name)
    table = pq.read_table(f"{run.path}/sources.parquet").to_pylist()
    kept = {(row["step"], row["sample"]): [row["kernel2/color/0"], row["kernel2/color/1"]] for row in table}
    place = trace.rows.benchmarks.index("color")
    for key, own in zip(
        zip(trace.rows.steps.tolist(), trace.rows.samples, strict=True), trace.rows.kernels2, strict=True
    ):
        assert own[place].tolist() == kept[key]


def test_every_arm_has_its_numbers_in_the_summary(traced):
    found = found_in(traced[1])
    assert list(found["traces"]) == list(five_arms().arms)
    for trace in found["traces"].values():
        assert trace["means"]["perplexity_start"] > 1
        assert {"norm_per_token", "coherence", "kernel", "lbk_per_token", "positive"} <= trace["means"].keys()
        assert trace["training_mean"]["dot"].keys() == {"jigsaw", "color", "count", "mean"}
        assert trace["change"]["color"].keys() == {"measured", "first_order", "trapezoid"}
        assert trace["agreement"]["trapezoid"]["pearson"] > trace["agreement"]["first_order"]["pearson"]
    assert len(found["differences"]) == 10
    assert all(pair["prompts"] == 8 for pair in found["differences"])


MEASURES = ("norm", "norm_per_token", "lbk", "lbk_per_token", "kernel", "kernel_per_token")
MEASURES += ("cosine", "positive", "dot_sample")
OF_SOURCE = ("coherence", "perplexity", "perplexity_start")


def test_measures_are_those_that_were_logged_with_bounds_around_them(traced):
    for trace in read(traced[0]):
        found = found_in(traced[1])["traces"][trace.label]
        for point in found["checkpoints"]:
            names = {measure: f"color/{measure}" for measure in MEASURES} | {name: name for name in OF_SOURCE}
            for measure, name in names.items():
                one = point[measure]["color"]
                assert one["value"] == pytest.approx(trace.measures[point["step"]][name], rel=1e-4)
                assert one["low"] <= one["value"] <= one["high"]
                assert one["low"] < one["high"] or measure == "positive"
        assert found["training_mean"]["kernel"]["mean"]["value"] == pytest.approx(found["means"]["kernel"], rel=1e-4)


def test_what_samples_add_to_their_sum_is_its_length_at_every_checkpoint(traced):
    for trace in read(traced[0]):
        color = trace.rows.benchmarks.index("color")
        for step in trace.steps:
            at, logged = trace.rows.steps == step, trace.measures[step]
            length = trace.rows.in_sum[at].sum()
            cosine = trace.rows.weighted_dots[at, color].sum() / length / logged["color/benchmark_norm"]
            assert cosine == pytest.approx(logged["color/cosine"])
            squares = trace.rows.weights[at] ** 2 @ trace.rows.norms2[at]
            assert (length**2 - squares) / (at.sum() - 1) / squares == pytest.approx(logged["coherence"])


def test_runs_that_kept_less_have_magnitudes_without_bounds(tmp_path):
    job = traced_study(tmp_path, five_arms(arms={"one": [SFT]}, **SMALL), {"one": FINAL_MODELS["answers"]})
    path = tmp_path / "one-0-influence" / "sources.parquet"
    pq.write_table(pq.read_table(path).select(["sample", "prompt", "step", "text"]), path)
    compare(job, tmp_path)
    found = found_in(tmp_path)["traces"]["one"]
    assert found["means"]["kernel"] > 0
    assert not {"kernel", "perplexity_start"} & found["training_mean"].keys()
    assert found["training_mean"]["perplexity"]["mean"]["low"] is not None


def test_adams_rates_are_those_that_were_logged_and_stand_beside_the_plain_ones(traced):
    job, root = traced
    for trace in read(job):
        found = found_in(root)["traces"][trace.label]
        assert found["checkpoints"][0]["adam_exchange"]["color"] is None
        assert found["adam"]["step"] == trace.steps[-2]
        for kind in ("dot", "adam_dot", "exchange", "adam_exchange"):
            logged = trace.measures[trace.steps[-2]][f"color/{kind}"]
            assert found["adam"]["last"][kind]["color"]["value"] == pytest.approx(logged, rel=1e-4)
            assert significant(logged) in section_of(root)
        for kind in ("tracin", "adam_tracin"):
            logged, one = trace.measures[trace.steps[-1]][f"color/{kind}"], found["sums"][kind]["color"]
            dots = trace.rows.weighted_dots if kind == "tracin" else trace.rows.adam_dots
            point = dot_products(trace.rows._replace(weighted_dots=dots), trace.steps, 1, None)
            summed_up = tracin_sums(point, strides_of(trace.measures, trace.steps))[
                0, trace.rows.benchmarks.index("color")
            ]
            assert one["value"] == pytest.approx(logged, rel=1e-4)
            assert one["value"] == pytest.approx(summed_up, rel=1e-4)
            assert one["low"] < one["value"] < one["high"]


def test_the_page_says_for_how_many_pairs_adam_and_the_gradient_disagree(traced, tmp_path):
    assert "they agree for all 10 pairs of a source and a benchmark" in section_of(traced[1])
    arms = {name: [SFT] for name in ("rollouts", "answers")}
    learners = {name: FINAL_MODELS[name] for name in arms}
    job = traced_study(tmp_path, five_arms(arms=arms, **SMALL), learners)
    turn_round(tmp_path / "answers-0-influence" / "influence.parquet", "dot/adam/color")
    compare(job, tmp_path)
    assert found_in(tmp_path)["adam_signs"]["training_mean"] == {"compared": 4, "differ": 1, "sure": 1}
    assert "they disagree for 1 of the 4 pairs of a source and a benchmark" in section_of(tmp_path)


def test_where_no_skill_is_learned_for_sure_dots_are_open_instead_of_rates(traced, tmp_path):
    assert "<details open>" not in section_of(traced[1])
    job = traced_study(tmp_path, five_arms(arms={"one": [SFT]}, **SMALL), {"one": FINAL_MODELS["answers"]})
    path = tmp_path / "one-0-influence" / "influence.parquet"
    turn_round(path, "dot/adam/jigsaw")
    compare(job, tmp_path)
    assert "<details open><summary>The dot products behind" in section_of(tmp_path)
    assert "so that there is no rate" not in section_of(tmp_path)
    turn_round(path, "dot/jigsaw/a")
    turn_round(path, "dot/jigsaw/b")
    compare(job, tmp_path)
    assert section_of(tmp_path).count("so that there is no rate") == 2


def turn_round(path, column):
    table = pq.read_table(path)
    turned = pa.array(-table[column].to_numpy(), from_pandas=True)
    pq.write_table(table.set_column(table.column_names.index(column), column, turned), path)


def test_without_adams_moments_nothing_is_said_of_adam(tmp_path):
    job = traced_study(tmp_path, five_arms(arms={"one": [SFT]}, **SMALL), {"one": FINAL_MODELS["answers"]})
    path = tmp_path / "one-0-influence" / "influence.parquet"
    table = pq.read_table(path)
    pq.write_table(table.select([name for name in table.column_names if not name.startswith("dot/adam/")]), path)
    compare(job, tmp_path)
    assert found_in(tmp_path)["traces"]["one"]["adam"] is None
    assert "Adam" not in section_of(tmp_path)


def test_lengths_are_matched_or_it_is_said_that_none_match(traced):
    pairs = {tuple(pair["traces"]): pair["equally_long"] for pair in found_in(traced[1])["differences"]}
    assert pairs["rft", "self"]["prompts"] == 8
    assert pairs["teacher", "answers"] is None
    assert "fewer than two prompts match" in section_of(traced[1])


def test_what_the_linear_form_leaves_out_is_told(traced):
    assert "rewards only, without the KL penalty (beta 0.1)" in section_of(traced[1])
    assert "LoRA" not in section_of(traced[1])


def test_rollouts_without_any_advantage_are_told_and_not_drawn(tmp_path):
    arms = {"rft": [{"method": "grpo", "trainer": {"max_steps": 40}}], "one": [SFT]}
    job = traced_study(
        tmp_path, five_arms(arms=arms, **SMALL), {"rft": FINAL_MODELS["rft"], "one": FINAL_MODELS["answers"]}
    )
    path = tmp_path / "rft-0-influence" / "influence.parquet"
    table = pq.read_table(path)
    weights = np.where(np.isin(table["step"], [10, 30]), 0.0, table["weight"])
    pq.write_table(table.set_column(table.column_names.index("weight"), "weight", pa.array(weights)), path)
    compare(job, tmp_path)
    found = found_in(tmp_path)["traces"]
    assert (found["rft"]["idle"], found["one"]["idle"]) == ([10, 30], [])
    assert found["rft"]["checkpoints"][1]["dot"]["color"] is None
    assert "at steps 10, 30, all rollouts of every prompt that was measured were rewarded alike" in section_of(tmp_path)
    assert "rft, step 10: –" not in section_of(tmp_path)


def test_no_sample_stands_twice_in_a_ranking(traced):
    job, _ = traced
    for ranking in influential_samples(read(job), job.data.path, job.study.target).values():
        said = [(item.prompt, item.text) for side in ranking for item in side]
        assert len(said) == len(set(said)) > 0
        assert all(len(side) <= 10 for side in ranking)
        assert all(item.effect < 0 for item in ranking.harmful)
        assert all(item.effect > 0 for item in ranking.helpful)
        assert [item.effect for item in ranking.harmful] == sorted(item.effect for item in ranking.harmful)


def test_an_effect_is_summed_over_prior_benchmarks_and_the_checkpoints_that_training_began_at(traced):
    job, _ = traced
    trace = next(trace for trace in read(job) if trace.label == "answers")
    ranking = influential_samples([trace], job.data.path, job.study.target)["answers"]
    worst = ranking.harmful[0]
    prior = [trace.rows.benchmarks.index(name) for name in ("color", "count")]
    own = [place for place, prompt in enumerate(trace.rows.prompts) if prompt == worst.prompt]
    assert worst.times == len(own) == 5
    learned = [place for place in own if trace.rows.steps[place] < trace.steps[-1]]
    assert worst.effect == pytest.approx(trace.rows.weighted_dots[np.ix_(learned, prior)].sum() / 4)
    assert worst.pictures[0].uri.startswith("data:image/png")


def test_stages_of_an_arm_are_traced_apart_and_adapters_named(tmp_path):
    lora = SFT | {"lora": {"rank": 4}}
    job = traced_study(tmp_path, five_arms(arms={"two": [SFT, lora]}, **SMALL), {"two": FINAL_MODELS["answers"]})
    compare(job, tmp_path)
    found = found_in(tmp_path)["traces"]
    assert {name: trace["lora"] for name, trace in found.items()} == {"two, stage 1": False, "two, stage 2": True}
    assert [trace.offset for trace in read(job)] == [0, 40]
    assert "trained with LoRA" in section_of(tmp_path)
    assert "a later stage" in section_of(tmp_path)


def test_measures_that_were_not_finite_and_prompts_without_pictures_leave_gaps(tmp_path):
    job = traced_study(tmp_path, five_arms(arms={"one": [SFT]}, **SMALL), {"one": FINAL_MODELS["answers"]})
    path = tmp_path / "one-0-influence" / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    dropped = (
        "benchmark_norm",
        "mean_cosine",
        "cosine",
        "kernel",
        "lbk",
        "perplexity_start",
        "change_measured",
        "pearson_trapezoid",
    )
    for line in lines:
        line["metrics"] = {k: v for k, v in line["metrics"].items() if k.split("/")[-1] not in dropped}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "data" / "target-train.parquet").unlink()
    compare(job, tmp_path)
    found = found_in(tmp_path)["traces"]["one"]
    assert found["means"]["perplexity_start"] is None
    assert found["training_mean"]["mean_cosine"]["color"] is None
    assert "NaN" not in (tmp_path / "summary.json").read_text()
    assert "no picture" in section_of(tmp_path)


def test_a_single_prompt_is_reported_without_bounds(tmp_path):
    job = traced_study(tmp_path, five_arms(arms={"one": [SFT]}, **SMALL), {"one": FINAL_MODELS["answers"]}, prompts=1)
    compare(job, tmp_path)
    dot = found_in(tmp_path)["traces"]["one"]["training_mean"]["dot"]["color"]
    assert dot["value"] is not None
    assert dot["low"] is None


def test_preconditioned_columns_are_no_benchmarks_of_their_own(traced):
    run = next(run for run in traced[0].runs if run.kind == "influence")
    assert "dot/adam/color" in pq.read_table(f"{run.path}/influence.parquet").column_names
    assert all(trace.rows.benchmarks == ("jigsaw", "color", "count") for trace in read(traced[0]))


def test_numbers_of_any_size_read_well():
    given = (0.0, 1.16, -0.0123, 48.2, 1634.0, 134712.0, 1.3e-8, None, float("nan"))
    assert [significant(value) for value in given] == [
        *("0", "1.16", "−0.0123", "48.2", "1634", "1.35e5", "1.30e−8", "–", "–")
    ]


def test_an_axis_is_bent_only_where_its_values_are_uneven():
    assert bend([1.0, -2.0, 3.0]) == (Bend(None), 3.0)
    bent, most = bend([0.01, -0.02, 0.03, 0.04, 50.0])
    assert (bent.unit, most) == (0.1, 50.0)
    assert bent(0) == 0
    assert bent(-2) == -bent(2)
    assert list(bent.ticks(most).values()) == ["−1", "−10", "0", "1", "10"]
    assert bend([]) == (Bend(None), 1.0)


def test_influence_is_read_without_torch_and_without_the_package_that_wrote_it():
    code = "import sys, holdfast.report.study; print({'torch', 'holdfast.influence'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
