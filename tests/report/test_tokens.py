"""A ledger on the page: accounts, kinds of tokens, and samples whose tokens are coloured."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from ledgers import write_ledger
from page_tags import Tags
from synthetic_studies import Shape, Truth, compare_job, finished_study

from holdfast.config.results import FinishedStudy, RunRecord
from holdfast.report.examples import rankings
from holdfast.report.study import compare
from holdfast.report.tokens import colored


@pytest.fixture(params=[True, False], ids=["traced", "untraced"])
def accounted(request: pytest.FixtureRequest, tmp_path: Path) -> FinishedStudy:
    """With traces beside it, or alone, as where a selection asked for the ledger."""
    shape = Shape(replicates=1, target=6, prior=6, pictures=True, traced=request.param)
    study = finished_study(tmp_path / "study", {"answers": Truth(0.6, 0.5)}, shape)
    prompt = "no such question"
    path = write_ledger(tmp_path / "ledger", ["color", "count", "presence"], "jigsaw", -0.4, prompt)
    run = RunRecord(kind="ledger", arm="answers", replicate=1, path=path, digest="l", seconds=1.0)
    return study.model_copy(update={"runs": (*study.runs, run)})


def test_the_samples_that_took_and_gave_most_have_their_tokens_coloured(accounted: FinishedStudy) -> None:
    [arm] = colored(accounted)
    assert arm["label"] == "answers"
    took, gave = arm["shown"]
    assert (took["step"], gave["step"]) == (1, 3)
    assert took["effect"] == pytest.approx((-0.4 + 0.1) / 3)
    assert [token["share"] for token in gave["tokens"]] == pytest.approx([0, 1, 1 / 3, 0])
    assert [token["share"] for token in took["tokens"]] == pytest.approx([0, -0.75, -0.25, 0])
    assert took["pictures"] is None


def test_a_sample_that_stands_twice_in_its_step_is_two_and_one_without_a_token_is_none(
    accounted: FinishedStudy,
) -> None:
    place = Path(accounted.runs[-1].path)
    rows, tokens = (pd.read_parquet(place / f"{name}.parquet") for name in ("ledger", "tokens"))
    masked = rows.iloc[:1].assign(tokens=0, prompt="masked")
    pd.concat([masked, rows]).assign(step=1, row=1).to_parquet(place / "ledger.parquet")
    tokens.assign(step=1, row=1).to_parquet(place / "tokens.parquet")
    [arm] = colored(accounted)
    assert [one["effect"] for one in arm["shown"]] == pytest.approx([-0.1, 0.4 / 3])
    shown = [(one["step"], one["prompt"], len(one["tokens"])) for one in arm["shown"]]
    assert shown == [(1, "no such question", 4)] * 2
    rows.assign(tokens=0).to_parquet(place / "ledger.parquet")
    tokens.iloc[:0].to_parquet(place / "tokens.parquet")
    assert colored(accounted) == []


def test_the_page_has_them_and_runs_nothing_that_was_said(accounted: FinishedStudy, tmp_path: Path) -> None:
    compare(compare_job(accounted), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert Tags(page).open == []
    assert '<section id="ledger">' in page
    assert (tmp_path / "figures" / "ledger.svg").is_file()
    said = json.loads((tmp_path / "summary.json").read_text())["influence"]
    assert [row["benchmark"] for row in said["ledger_benchmarks"]] == ["color", "count", "presence", "jigsaw"]
    assert "<summary>By benchmark</summary>" in page
    assert "By kind of token" in page
    assert "so &lt;b&gt;</span>" in page
    assert 'style="--share:55%;--side:var(--right)"' in page


def test_samples_are_ranked_by_their_ledger_where_there_is_one(accounted: FinishedStudy) -> None:
    """Three steps, −0.3, −0.1 and 0.4, the first two of which learned the same sample."""
    place = Path(accounted.runs[-1].path) / "ledger.parquet"
    rows = pq.read_table(place).to_pandas()
    rows.assign(text=["again", "again", "once"], source=["replay", "replay", "answers"]).to_parquet(place)
    [found] = rankings(accounted, "ledger")
    [harmful], [helpful] = found["harmful"], found["helpful"]
    assert (harmful["text"], harmful["times"], harmful["source"]) == ("again", 2, "replay")
    assert (harmful["effect"], helpful["effect"]) == pytest.approx((-0.4 / 3, 0.4 / 3))
    assert rankings(accounted, "influence") == []
    without = accounted.model_copy(update={"runs": accounted.runs[:-1]})
    assert len(rankings(without, "influence")) == sum(run.kind == "influence" for run in accounted.runs)
