import json
from pathlib import Path

import pytest
from page_tags import Tags
from synthetic_studies import Shape, Truth, compare_job, finished_study, with_form

from holdfast.report.study import compare

TRUTHS = {"rft": Truth(0.6, 0.95), "answers": Truth(0.68, 0.3)}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    shape = Shape(target=20, prior=12, pictures=True, traced=True)
    notes = compare(compare_job(with_form(finished_study(root / "study", TRUTHS, shape), "count")), root)
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
    assert json.loads((root / "summary.json").read_text())["arms"]["rft"]["retention"]["replicates"] == 3
    assert {"frontier.svg", "frontier.pdf", "frontier.csv"} <= {path.name for path in (root / "figures").iterdir()}


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
