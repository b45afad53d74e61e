"""The report of a study whose target is no jigsaw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_runs import FINAL_MODELS, five_arms, traced_study

from holdfast.analysis.influence_runs import read_traces
from holdfast.analysis.records import finished_runs
from holdfast.analysis.table import arms_table
from holdfast.report.study import compare

PRIOR = ("count", "color")


@pytest.mark.parametrize("benchmark", ["classes", "detection"])
def test_tables_charts_and_examples_follow_the_target(benchmark: str, tmp_path: Path) -> None:
    study = five_arms(target={"benchmark": benchmark, "test": 20}, prior=PRIOR)
    job = traced_study(tmp_path / "study", study, FINAL_MODELS)
    compare(job, tmp_path)
    page = (tmp_path / "report.html").read_text()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert "igsaw" not in page.replace(job.command, "")
    assert "puzzle" not in page[page.index("</style>") :].replace("#puzzles", "").replace('="puzzle', "")
    assert f"<dt>Target</dt><dd>{benchmark} from drawn images</dd>" in page
    assert page.count("the question as shown") == 3
    assert (summary["target"]["benchmark"], summary["target"]["questions"]) == (benchmark, 20)
    assert 0 < summary["target"]["chance"] < 0.2
    for arm in summary["arms"].values():
        assert f"target/{benchmark}/score" in arm["metrics"]
        assert f"target/{benchmark}/accuracy" in arm["intervals"]
    assert summary["aliases"]["best-skill"]["score"] > summary["base"]["metrics"][f"target/{benchmark}/score"]
    console = Console(width=140, record=True, file=(tmp_path / "table.txt").open("w"))
    console.print(arms_table(summary))
    assert "rft" in console.export_text()


def test_influence_knows_the_target_from_the_prior(tmp_path: Path) -> None:
    """`count` and `color` come before `spatial` in the alphabet."""
    study = five_arms(target={"benchmark": "spatial", "test": 8}, prior=PRIOR)
    job = traced_study(tmp_path / "study", study, FINAL_MODELS)
    found = read_traces(finished_runs(job.runs, tuple(study.arms)), study)
    assert {trace.rows.benchmarks for trace in found} == {("spatial", "color", "count")}
    assert {trace.prior for trace in found} == {("color", "count")}
