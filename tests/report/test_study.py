import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from page_tags import Tags
from rich.console import Console
from synthetic_runs import BASE, FINAL_MODELS, HOSTILE, Model, finish, finished_study, five_arms

from holdfast.analysis.records import finished_runs, read_metrics
from holdfast.analysis.table import arms_table, duration, number
from holdfast.benchmarks.targets import jigsaw
from holdfast.config.targets import Jigsaw
from holdfast.journal import Journal, read_lines
from holdfast.report.study import compare, headline

SFT = {"method": "sft", "source": "answers", "trainer": {"max_steps": 40}}


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    root = tmp_path_factory.mktemp("bundled")
    job = finished_study(root, five_arms(), FINAL_MODELS)
    compare(job, root)
    return job, root


def summary_of(root):
    return json.loads((root / "summary.json").read_text())


def page_of(root):
    return (root / "report.html").read_text()


def test_the_page_is_whole_and_fetches_nothing(bundled):
    tags = Tags(page_of(bundled[1]))
    assert tags.open == []
    assert all(link.startswith(("data:image/", "#")) for link in tags.fetched)
    assert not re.search(r"@import|url\(", page_of(bundled[1]))
    assert len(page_of(bundled[1])) < 3_000_000


def test_what_a_model_says_is_shown_and_never_run(bundled):
    tags = Tags(page_of(bundled[1]))
    assert not tags.names & {"script", "answer", "think"}
    assert tags.handlers == []
    assert "&lt;script&gt;alert" in page_of(bundled[1])
    assert HOSTILE not in page_of(bundled[1])


def test_the_same_runs_give_the_same_bytes(bundled, tmp_path):
    job, root = bundled
    compare(job, tmp_path)
    for name in ("report.html", "summary.json"):
        assert (tmp_path / name).read_bytes() == (root / name).read_bytes()


def test_the_summary_repeats_what_the_runs_logged(bundled):
    job, root = bundled
    summary = summary_of(root)
    for arm in finished_runs(job.runs, tuple(job.study.arms)).arms:
        metrics = summary["arms"][arm.name]["metrics"]
        unreported = ("train/", "validation/")
        logged = {name: value for name, value in arm.points[-1].metrics.items() if not name.startswith(unreported)}
        assert metrics.keys() >= logged.keys()
        for name, value in logged.items():
            assert metrics[name] == pytest.approx(value, abs=1e-6)


def test_intervals_surround_what_was_measured(bundled):
    summary = summary_of(bundled[1])
    for arm in summary["arms"].values():
        assert {"target/jigsaw/score", "retention", "forgetting/mean", "forgetting/digits"} <= arm["intervals"].keys()
        for name, (value, low, high) in ((name, found.values()) for name, found in arm["intervals"].items()):
            assert low - 1e-6 <= value <= high + 1e-6
            assert value == pytest.approx(arm["metrics"][name], abs=1e-6)


def test_the_headline_states_the_range_at_a_common_score(bundled):
    summary = summary_of(bundled[1])
    kept = {arm: found[0]["retention"] for arm, found in summary["matched"]["arms"].items()}
    text = headline(summary)
    assert f"At a target score of {number(summary['matched']['all_arms'])}, which all 5 arms reach" in text
    assert f"from {number(min(kept.values()))} ({min(kept, key=kept.get)})" in text
    assert f"to {number(max(kept.values()))} ({max(kept, key=kept.get)})" in text
    assert text in page_of(bundled[1])


def test_aliases_name_evaluated_checkpoints(bundled):
    job, root = bundled
    summary = summary_of(root)
    arms = {arm.name: arm for arm in finished_runs(job.runs, tuple(job.study.arms)).arms}
    best = max(point.score for arm in arms.values() for point in arm.points)
    assert summary["aliases"]["best-skill"]["score"] == pytest.approx(best, abs=1e-6)
    keeping = summary["aliases"]["best-retention"]
    assert keeping["score"] >= summary["matched"]["all_arms"]
    assert keeping["step"] in [point.stage_step for point in arms[keeping["arm"]].points[1:]]
    assert keeping["run_id"] == arms[keeping["arm"]].stages[0].record.run_id


def test_aliases_are_chosen_by_validation_questions_and_reported_by_test_questions(tmp_path):
    job = finished_study(tmp_path, five_arms(), FINAL_MODELS)
    run = next(run for run in job.runs if run.arm == "teacher")
    chosen, last = sorted(read_metrics(Path(run.path)))[1], max(read_metrics(Path(run.path)))
    better = {"validation/target/jigsaw/score": 1.0, "validation/prior/color/accuracy": 1.0}
    Journal(Path(run.path)).log(chosen, better)
    Journal(Path(run.path)).log(last, {"target/jigsaw/score": 1.0})
    compare(job, tmp_path)
    found = summary_of(tmp_path)["aliases"]["best-skill"]
    assert (found["arm"], found["step"]) == ("teacher", chosen)
    assert found["score"] == pytest.approx(read_metrics(Path(run.path))[chosen]["target/jigsaw/score"], abs=1e-6)


def test_an_arm_has_one_color_everywhere(bundled):
    page = page_of(bundled[1])
    for index, arm in enumerate(FINAL_MODELS):
        name = list(five_arms().arms)[index]
        colors = {
            color
            for color, label in re.findall(r'<g class="(c\d)">(?:<line[^>]*>)?<text[^>]*>([^<]*)', page)
            if label == name
        }
        assert colors == {f"c{index}"}, arm


def test_stages_of_an_arm_follow_each_other(tmp_path):
    study = five_arms(arms={"two": [SFT, SFT]}, target={"test": 10}, prior=["color"])
    job = finished_study(tmp_path, study, {"two": FINAL_MODELS["answers"]}, evaluations=2)
    arm = finished_runs(job.runs, ("two",)).arms[0]
    assert [(point.step, point.stage, point.stage_step) for point in arm.points] == [
        (0, 0, 0),
        (20, 0, 20),
        (40, 0, 40),
        (60, 1, 20),
        (80, 1, 40),
    ]
    assert arm.seconds == 32
    compare(job, tmp_path)
    assert "The arm two moves the target score" in page_of(tmp_path)


def test_optional_measures_may_be_missing(tmp_path):
    study = five_arms(arms={"one": [SFT]}, target={"test": 10}, prior=["color"])
    compare(finished_study(tmp_path, study, {"one": FINAL_MODELS["self"]._replace(drift=None)}), tmp_path)
    assert 'id="drift"' not in page_of(tmp_path)
    assert "pass@" not in page_of(tmp_path)


def test_pass_at_k_is_shown_where_it_was_measured(tmp_path):
    study = five_arms(arms={"one": [SFT]}, target={"test": 10}, prior=["color"])
    job = finished_study(tmp_path, study, {"one": FINAL_MODELS["self"]})
    with (tmp_path / "one-0" / "metrics.jsonl").open("a") as journal:
        journal.write('{"step": 40, "metrics": {"target/jigsaw/pass_at_4": 0.83}}\n')
    compare(job, tmp_path)
    assert "pass@4" in page_of(tmp_path)
    assert "0.83" in page_of(tmp_path)


def test_an_arm_that_forgets_nothing_has_no_examples(tmp_path):
    study = five_arms(arms={"still": [SFT]}, target={"test": 10}, prior=["color"])
    compare(finished_study(tmp_path, study, {"still": BASE}), tmp_path)
    assert "lost 0 of" in page_of(tmp_path)
    assert summary_of(tmp_path)["matched"]["all_arms"] is None


def test_a_base_that_knows_nothing_is_reported_without_dividing_by_it(tmp_path):
    study = five_arms(arms={"one": [SFT]}, target={"test": 10}, prior=["grounding"])
    job = finished_study(tmp_path, study, {"one": Model(0.5, 0.0, 1.0)})
    base = tmp_path / "base"
    rows = pq.read_table(base / "evaluations" / "step-000000.parquet").to_pylist()
    nothing = [row | {"correct": False, "parsed": None} if row["role"] == "prior" else row for row in rows]
    pq.write_table(pa.Table.from_pylist(nothing), base / "evaluations" / "step-000000.parquet")
    line = json.loads((base / "metrics.jsonl").read_text())
    line["metrics"] |= {"prior/grounding/accuracy": 0.0, "prior/mean/accuracy": 0.0}
    (base / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    compare(job, tmp_path)
    assert "retention" not in summary_of(tmp_path)["arms"]["one"]["intervals"]


@pytest.mark.parametrize(("layout", "question"), [("pieces", "full"), ("pieces", "pair"), ("composite", "pair")])
def test_every_kind_of_puzzle_is_shown(tmp_path, layout, question):
    target = {"grid": [3, 3], "layout": layout, "question": question, "test": 6}
    study = five_arms(arms={"one": [SFT]}, target=target, prior=["color"])
    compare(finished_study(tmp_path, study, {"one": FINAL_MODELS["rft"]}), tmp_path)
    assert page_of(tmp_path).count('class="puzzle"') == 3
    assert ("solved" in page_of(tmp_path)) == (question == "full")


def test_notes_and_the_origin_of_samples_are_told(tmp_path):
    study = five_arms(arms={"one": [SFT]}, target={"test": 10}, prior=["color"])
    job = finished_study(tmp_path, study, {"one": FINAL_MODELS["rft"]})
    (tmp_path / "make").mkdir()
    (tmp_path / "sampled").mkdir()
    kept = {"id": "p1", "completion": "…", "sample": 0, "model": "f" * 64, "step": 800, "temperature": 1.0, "seed": 5}
    pq.write_table(pa.Table.from_pylist([kept | {"accuracy": 1.0}] * 3), tmp_path / "sampled" / "samples.parquet")
    notes = {"skipped": ["holiday/<broken>.jpg"]}
    more = (
        finish(tmp_path / "make", 1.0, {"kind": "data"}, notes),
        finish(tmp_path / "sampled", 1.0, {"kind": "sample", "arm": "one"}),
    )
    compare(job.model_copy(update={"runs": job.runs + more}), tmp_path)
    assert "1: holiday/&lt;broken&gt;.jpg" in page_of(tmp_path)
    assert "Sampled completions that arms learned from" in page_of(tmp_path)


def test_an_unfinished_arm_is_left_out(tmp_path):
    study = five_arms(arms={"one": [SFT], "never": [SFT]}, target={"test": 10}, prior=["color"])
    job = finished_study(tmp_path, study, {"one": FINAL_MODELS["rft"], "never": FINAL_MODELS["rft"]})
    runs = tuple(run for run in job.runs if run.arm != "never")
    compare(job.model_copy(update={"runs": runs}), tmp_path)
    assert list(summary_of(tmp_path)["arms"]) == ["one"]


def test_the_terminal_table_has_a_row_for_the_base_and_every_arm(bundled):
    console = Console(width=130, record=True, file=io.StringIO())
    console.print(arms_table(summary_of(bundled[1])))
    text = console.export_text()
    assert [line.split()[0] for line in text.splitlines()[2:]] == ["base", *five_arms().arms]
    assert "chance 0.25" in text


def test_guessing_a_puzzle_places_one_piece_in_n():
    assert jigsaw.score_by_chance(Jigsaw(grid=(3, 3))) == pytest.approx(1 / 9)
    assert jigsaw.score_by_chance(Jigsaw(grid=(2, 2), question="pair")) == pytest.approx(1 / 4)


def test_numbers_and_durations_read_well():
    assert [number(value) for value in (0.456, -0.1, -0.001, None)] == ["0.46", "−0.10", "0.00", "–"]
    assert [duration(value) for value in (34, 318, 1800, 7500)] == ["34 s", "5.3 min", "30 min", "2 h 5 min"]


def test_comparison_needs_neither_torch_nor_a_plotting_library():
    code = "import sys, holdfast.report.study; print({'torch', 'matplotlib', 'mlflow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_alarms_of_a_training_stand_in_the_report_escaped(tmp_path):
    study = five_arms(arms={"one": [SFT]}, target={"test": 10}, prior=["color"])
    job = finished_study(tmp_path, study, {"one": FINAL_MODELS["self"]})
    assert "Alarms during training" not in page_after(job, tmp_path)
    (record,) = (run for run in job.runs if run.kind == "train")
    Journal(Path(record.path)).alarm(20, "no-spread", f"90% of the groups {HOSTILE}")
    page = page_after(job, tmp_path)
    assert "step 20, no spread: 90% of the groups &lt;script&gt;" in page
    assert HOSTILE not in page
    assert summary_of(tmp_path)["alarms"] == [
        {"arm": "one", "stage": 0, "step": 20, "name": "no-spread", "sentence": f"90% of the groups {HOSTILE}"}
    ]


def page_after(job, root):
    compare(job, root)
    return page_of(root)


def test_an_arm_that_did_not_finish_and_a_number_that_is_not_finite_are_told_as_such(tmp_path):
    study = five_arms(arms={"one": [SFT]}, target={"test": 10}, prior=["grounding"])
    job = finished_study(tmp_path, study, {"one": FINAL_MODELS["rft"]})
    stage = next(Path(run.path) for run in job.runs if run.kind == "train")
    lines = read_lines(stage / "metrics.jsonl")
    Journal(stage).log(lines[-1]["step"], {"kl/target": math.inf, "prior/grounding/logprob": math.nan})
    compare(job.model_copy(update={"failed": {"two": "training was stopped: <its> weights"}}), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    metrics = summary["arms"]["one"]["metrics"]
    assert (metrics["kl/target"], metrics["prior/grounding/logprob"]) == ("Infinity", "NaN")
    assert "<td>not finite</td>" in page_of(tmp_path)
    assert "<li>two: training was stopped: &lt;its&gt; weights.</li>" in page_of(tmp_path)
    assert Tags(page_of(tmp_path)).open == []
