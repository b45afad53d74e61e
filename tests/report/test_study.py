import base64
import hashlib
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from page_tags import Tags
from synthetic_studies import HOSTILE, Shape, Truth, compare_job, finished_study, with_cuts, with_form

from holdfast.report import flips
from holdfast.report.study import compare

TRUTHS = {"rft": Truth(0.6, 0.95), "answers": Truth(0.68, 0.3)}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    shape = Shape(target=20, prior=12, pictures=True, traced=True, predicted=True)
    study = with_cuts(with_form(finished_study(root / "study", TRUTHS, shape), "count"), None, "answers")
    notes = compare(compare_job(study), root)
    return notes, root


def test_a_study_becomes_a_page_a_summary_and_figures(report):
    notes, root = report
    page = (root / "report.html").read_text()
    assert Tags(page).open == []
    assert notes["headline"] in page
    assert notes["arms"] == 2
    assert "rft retains more prior knowledge than answers" in page
    # Of the base, of both arms, and once to explain it.
    assert page.count("in form") == 4
    content = json.loads((root / "summary.json").read_text())
    answers = content["arms"]["answers"]
    _, base_row, _, answers_row = page.split('id="arms"')[1].split("</table>")[0].split("<tr")[1:]
    for row, found in ((base_row, content["base"]["metrics"]), (answers_row, answers["metrics"])):
        assert f"<small>leniently {found['target/jigsaw/lenient']:.2f}</small>" in row
        assert f"<small>cut off {found['prior/mean/cut']:.2f}</small>" in row
        assert round(found["target/jigsaw/cut"], 2) != round(found["prior/mean/cut"], 2)
    assert f"<small>cut off {answers['benchmarks']['color']['lost_cut']['value']:.2f}</small>" in page
    # Old records of the other arm do not say.
    assert page.count("<small>leniently") == 2
    assert json.loads((root / "summary.json").read_text())["arms"]["rft"]["retention"]["replicates"] == 3
    assert "forward KL, target predicts mean forgetting best" in page
    assert json.loads((root / "summary.json").read_text())["predictors"][0]["spearman"] > 0.8
    assert {"frontier.svg", "frontier.pdf", "frontier.csv", "predictors.svg"} <= {
        path.name for path in (root / "figures").iterdir()
    }


@pytest.mark.slow
def test_a_sweep_is_the_same_page(tmp_path: Path):
    shape = Shape(replicates=1, target=10, prior=8, pictures=True)
    studies = [
        finished_study(tmp_path / level, TRUTHS, shape, {"steps": level}, name=f"s-{level}", sweep="s", seed=seed)
        for seed, level in enumerate(("few", "many"))
    ]
    compare(compare_job(*studies, factors={"steps": ("few", "many")}), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert Tags(page).open == []


def test_every_flip_is_in_the_ledger_with_what_was_said_and_what_pushed_it(report):
    _, root = report
    rows = pq.read_table(root / "flips.parquet").to_pandas()
    lost = rows[(rows.flip == "lost") & (rows.arm == "answers")]
    assert len(lost) > 50
    assert lost.base_said.equals(lost.answer)
    assert (lost.said.isna() == lost.unreadable).all()
    assert HOSTILE in lost[lost.unreadable].completion.iloc[0]
    # What is lost was pushed by negative effects, what is learned by positive ones.
    signs = {flip: {one["effect"] > 0 for by in own.pushed_by for one in by} for flip, own in rows.groupby("flip")}
    assert signs["lost"] == {False}
    assert signs["learned"] == {True}
    first = lost[(lost.step == 4) & (lost.role == "prior")].iloc[0]
    run = root / "study" / f"answers-{first.replicate}-influence"
    traced = pq.read_table(run / "influence.parquet", filters=[("step", "==", 0)]).to_pandas()
    effect = traced.weight * (traced[f"dot/{first.benchmark}/a"] + traced[f"dot/{first.benchmark}/b"]) / 2
    assert first.pushed_by[0]["sample"] == traced["sample"][effect.idxmin()]
    assert first.pushed_by[0]["effect"] == pytest.approx(effect.min())


def test_the_ledger_on_the_page_is_drawn_limited_and_inert(report, monkeypatch, tmp_path):
    page = (report[1] / "report.html").read_text()
    tags = Tags(page)
    assert page.count("<script") == 1
    assert tags.handlers == []
    assert HOSTILE not in page
    [policy] = re.findall(r"script-src '(sha256-[^']+)'", page)
    script = page.partition("<script>")[2].partition("</script>")[0]
    assert policy == "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    monkeypatch.setattr(flips, "SHOWN", 7)
    shape = Shape(replicates=1, target=10, prior=8, pictures=True)
    compare(compare_job(finished_study(tmp_path / "study", TRUTHS, shape)), tmp_path)
    total = pq.read_metadata(tmp_path / "flips.parquet").num_rows
    page = (tmp_path / "report.html").read_text()
    assert f"Here are 7 of {total} flips" in page
    assert page.count("<tr data-arm=") == 7
