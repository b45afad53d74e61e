import dataclasses
import json
import re

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up_analysis import HOSTILE, analysed, compared, finished, made_up_study, traced
from page_tags import Tags

from holdfast.analysis.removal import COLUMNS
from holdfast.report import drawing
from holdfast.report.study import render

FETCHING = re.compile(r"@import|url\((?!#)")


def page_of(analysis, root):
    return render(analysis, {"evidence": "ee"}, "The headline <of> it.", drawing.draw(analysis, root / "figures"))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    job = compared(traced(root, finished(root, made_up_study())), failed={"two": "stopped: <its> weights"})
    return page_of(analysed(job, influence=True), root), root


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweep")
    studies = [
        finished(root / size, made_up_study(name=f"s-{size}", sweep="s", target=target), {"size": size})
        for size, target in (("small", {"test": 8}), ("large", {"benchmark": "detection", "test": 8}))
    ]
    return page_of(analysed(compared(*studies)), root), root


def test_a_page_is_whole_and_fetches_nothing(study, sweep):
    for page, _ in (study, sweep):
        tags = Tags(page)
        assert tags.open == []
        assert all(link.startswith(("data:image/", "#")) for link in tags.fetched)
        assert not FETCHING.search(page)


def test_what_a_model_says_is_shown_and_never_run(study, sweep):
    for page, _ in (study, sweep):
        tags = Tags(page)
        assert not tags.names & {"script", "answer", "think", "its", "of"}
        assert tags.handlers == []
        assert "&lt;script&gt;alert" in page
        assert HOSTILE not in page


def test_ids_are_unique_and_what_is_referred_to_is_there(study, sweep):
    for page, _ in (study, sweep):
        ids = re.findall(r'\bid="([^"]+)"', page)
        assert len(ids) == len(set(ids))
        assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', page)) <= set(ids)


def test_colors_of_figures_follow_the_theme(study):
    drawn = "".join(re.findall(r'<svg class="chart".*?</svg>', study[0], flags=re.DOTALL))
    plain = set(re.findall(r"(?<!, )#[0-9a-f]{6}\b", drawn))
    assert plain == set()
    assert "var(--c0" in drawn


def test_the_same_analysis_gives_the_same_bytes(study, tmp_path):
    job = compared(traced(tmp_path, finished(tmp_path, made_up_study())), failed={"two": "stopped: <its> weights"})
    page = page_of(analysed(job, influence=True), tmp_path)
    assert page == study[0]
    first, again = ({f.name: f.read_bytes() for f in (p / "figures").iterdir()} for p in (study[1], tmp_path))
    assert first == again


def test_every_figure_is_saved_in_three_ways(study):
    names = {path.stem for path in (study[1] / "figures").iterdir()}
    assert names == {
        *("verdicts", "frontier", "curves", "forgetting", "drift", "training", "influence", "dot", "cosine"),
    }
    assert {path.suffix for path in (study[1] / "figures").iterdir()} == {".svg", ".pdf", ".csv"}
    assert len(list((study[1] / "figures").iterdir())) == 3 * len(names)


def test_numbers_that_what_happened_contradicts_are_folded_away(study):
    folded = study[0][study[0].index("<summary>Contradicted: 2 predictions") :]
    assert folded.count('<b class="no">contradicted</b>') == 2
    assert 'class="no">contradicted' not in study[0][: study[0].index("<summary>Contradicted")]
    assert "correlate with 0.79 (0.74 to 0.84)" in study[0]


def test_samples_that_pull_both_ways_are_ranked(study):
    harmful, helpful = study[0].index(">harmful<"), study[0].index(">helpful<")
    assert harmful < study[0].index("said -2.0") < helpful < study[0].index("said 3.0")
    assert "said 0.0" not in study[0]


def test_puzzles_are_put_together_and_lost_knowledge_is_shown(study):
    assert study[0].count('class="puzzle"') == 3
    assert "solved" in study[0]
    assert 'now <b class="no">unreadable</b>' in study[0]


def test_one_replicate_gives_no_verdict(tmp_path):
    page = page_of(analysed(compared(finished(tmp_path, made_up_study(replicates=1)))), tmp_path)
    assert "One replicate gives no verdict" in page
    assert 'class="grid"' not in page


def test_a_sweep_has_its_settings(sweep):
    page, root = sweep
    assert "rft retains more prior knowledge with size=large than with small" in page
    assert {"levels", "settings"} <= {path.stem for path in (root / "figures").iterdir()}
    assert page.count("solid line is a right box") + page.count("Each picture is put together") == 1


def test_what_did_not_finish_and_alarms_are_said(study):
    assert "<li>two: stopped: &lt;its&gt; weights.</li>" in study[0]
    assert "step 20, no spread: 90% of the groups" in study[0]
    assert "3.60 % of its answers" in study[0]
    assert json.dumps(HOSTILE) not in study[0]


@pytest.mark.slow
def test_texts_of_a_megabyte_are_cut(tmp_path):
    finish = finished(tmp_path, made_up_study(replicates=1))
    for one in finish.evaluated:
        if one.kind == "records":
            table = pq.read_table(one.file.path)
            for name in ("prompt", "completion"):
                long = pa.array([f"{text} {'very ' * 200_000}" for text in table[name].to_pylist()])
                table = table.set_column(table.schema.get_field_index(name), name, long)
            pq.write_table(table, one.file.path)
    assert len(page_of(analysed(compared(finish)), tmp_path)) < 2_000_000


def test_what_leaving_samples_out_did_stands_beside_why_some_has_no_prediction(tmp_path):
    job = compared(finished(tmp_path, made_up_study()))
    told = {"setting": "", "arm": "part", "whole": "all", "by": "ledger", "kept": 0.75, "places": 0.8, "steps": 0.75}
    told |= {"predicted": 0.5, "measured": 0.25, "beyond": -0.25, "replicates": 1, "untold": ""}
    told |= {"error": 0.04, "worst": 0.08}
    untold = {
        "setting": "",
        "arm": "other",
        "whole": "all",
        "by": "loss",
        "replicates": 0,
        "untold": "replicate 1: <x>",
    }
    removal = pd.DataFrame([told, untold], columns=COLUMNS)
    page = page_of(dataclasses.replace(analysed(job), removal=removal), tmp_path)
    assert Tags(page).open == []
    section = page[page.index('<section id="removal">') :].partition("</section>")[0]
    assert "80.0 % of places, 75 % of steps" in section
    assert "4 %<small>worst 8 %</small>" in section
    assert "all effects count by that share" in section
    assert section.count("<tr>") == 2, "a head and one arm"
    assert "replicate 1: &lt;x&gt;." in section
