"""The report of a sweep."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from page_tags import Tags
from rich.console import Console
from synthetic_runs import FINAL_MODELS, HOSTILE, Model, finished_sweep, five_arms

from holdfast.analysis.contrasts import contrast_rows
from holdfast.analysis.length_split import longer_weights
from holdfast.analysis.records import read_graded
from holdfast.analysis.sweep_runs import read_layout
from holdfast.analysis.table import sweep_table
from holdfast.config.jobs import Contrast
from holdfast.config.sweep import Member, Sweep
from holdfast.errors import UserError
from holdfast.journal import Journal
from holdfast.report.sweep import contrast

GRPO = [{"method": "grpo", "trainer": {"max_steps": 800}}]
SFT = [{"method": "sft", "source": "answers", "trainer": {"max_steps": 40}}]
COUNTS = {"1": 8, "4": 32, "16": 128, "all": 400}
FACTORS = {"task": ("classes", "spatial"), "thinking": ("on", "off"), "samples": tuple(COUNTS)}
Factors = dict[str, tuple[str, ...]]


def swept(name: str, factors: Factors, study: Callable[[dict[str, str]], dict[str, Any]]) -> Sweep:
    """A member for every combination of levels, with the changes that `study` makes of them."""
    members = []
    for levels in product(*factors.values()):
        named = dict(zip(factors, levels, strict=True))
        whole = re.sub("[^a-z0-9-]", "_", f"{name}-{'-'.join(levels)}")
        members.append(Member(levels=named, study=five_arms(name=whole, sweep=name, prior=["color"], **study(named))))
    return Sweep(name=name, factors=factors, members=tuple(members))


def of_tasks(levels: dict[str, str], test: int = 40) -> dict[str, Any]:
    arms = {"sft": SFT, "rft": GRPO} | ({"length": GRPO} if levels["thinking"] == "on" else {})
    target = {"benchmark": levels["task"], "thinking": levels["thinking"] == "on", "test": test}
    return {"arms": arms, "target": target | {"train": COUNTS[levels.get("samples", "all")]}}


def learned(member: Member) -> dict[str, Model]:
    """Thinking helps the one task and harms the other; more samples help everywhere."""
    rank = list(COUNTS).index(member.levels.get("samples", "all"))
    thinks = member.levels["thinking"] == "on"
    gain = (0.15 if member.levels["task"] == "spatial" else -0.1) * thinks
    skills = {"sft": 0.25 + 0.13 * rank, "rft": 0.35 + 0.1 * rank, "length": 0.33 + 0.1 * rank}
    words = {"sft": 1.0, "rft": 4.0 + 2 * rank, "length": 10.0 + 3 * rank}
    return {
        arm: Model(skills[arm] + gain, 0.6 if arm == "sft" else 0.9, 0.03, None, words[arm] if thinks else 0.0)
        for arm in member.study.arms
    }


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Contrast, Path]:
    """Two tasks, with and without thinking, from 8 and from 400 questions."""
    root = tmp_path_factory.mktemp("tasks")
    factors = FACTORS | {"samples": ("1", "4", "all")}
    job = finished_sweep(root, swept("visual", factors, of_tasks), learned)
    for run in job.members[-1].runs:
        if run.arm == "rft":
            Journal(Path(run.path)).alarm(400, "length", f"completions grew {HOSTILE}")
    contrast(job, root)
    return job, root


def summary_of(root: Path) -> dict[str, Any]:
    return json.loads((root / "summary.json").read_text())


def page_of(root: Path) -> str:
    return (root / "report.html").read_text()


def shown(root: Path, job: Contrast) -> dict[str, Any]:
    root.mkdir(exist_ok=True)
    contrast(job, root)
    return summary_of(root)


def answer_as(job: Contrast, member: int, arm: str, right: list[bool], tokens: list[int] | None = None) -> None:
    """Let an arm of a member (or its base, `evaluate`) be right on these target questions."""
    (run,) = (run for run in job.members[member].runs if (run.arm or run.kind) == arm)
    path = max((Path(run.path) / "evaluations").glob("*.parquet"))
    rows = pq.read_table(path).to_pylist()
    asked = sorted((row for row in rows if row["role"] == "target"), key=lambda row: row["id"])
    for place, row in enumerate(asked):
        row |= {"correct": right[place], "score": float(right[place])}
        row["tokens"] = tokens[place] if tokens else row["tokens"]
    pq.write_table(pa.Table.from_pylist(rows), path)


def small(root: Path, factors: Factors | None = None, test: int = 4) -> Contrast:
    """Two tasks with and without thinking, four test questions each."""
    factors = factors or {"task": ("classes", "spatial"), "thinking": ("on", "off")}
    return finished_sweep(root, swept("small", factors, lambda levels: of_tasks(levels, test)), learned)


def test_the_page_is_whole_and_what_a_model_says_is_never_run(tasks: tuple[Contrast, Path]) -> None:
    tags = Tags(page_of(tasks[1]))
    assert tags.open == []
    assert all(link.startswith(("data:image/", "#")) for link in tags.fetched)
    assert not tags.names & {"script", "answer", "think"}
    assert tags.handlers == []
    assert HOSTILE not in page_of(tasks[1])
    assert "completions grew &lt;script&gt;" in page_of(tasks[1])
    assert len(page_of(tasks[1])) < 3_000_000


def test_the_same_runs_give_the_same_bytes(tasks: tuple[Contrast, Path], tmp_path: Path) -> None:
    contrast(tasks[0], tmp_path)
    for name in ("report.html", "summary.json"):
        assert (tmp_path / name).read_bytes() == (tasks[1] / name).read_bytes()


def test_each_factor_is_given_its_part_by_what_it_changes(tasks: tuple[Contrast, Path]) -> None:
    summary = summary_of(tasks[1])
    assert summary["sweep"] == "visual"
    assert summary["roles"] == {"panel": "task", "samples": "samples", "series": ["thinking"], "repeats": []}
    assert list(summary["panels"]) == ["classes", "spatial"]
    assert summary["panels"]["classes"]["columns"] == {"1": 8, "4": 32, "all": 400}
    assert [series["name"] for series in summary["series"]] == [
        "sft, thinking on",
        "sft, thinking off",
        "rft, thinking on",
        "rft, thinking off",
        "length, thinking on",
    ]


def test_cells_repeat_what_the_runs_logged(tasks: tuple[Contrast, Path]) -> None:
    job, root = tasks
    member = next(m for m in job.members if m.levels == {"task": "spatial", "thinking": "off", "samples": "all"})
    (run,) = (run for run in member.runs if run.arm == "rft")
    rows = [row for row in read_graded(Path(run.path), 800) if row.role == "target"]
    cell = summary_of(root)["panels"]["spatial"]["rows"][3]["cells"]["all"]
    assert cell["intervals"]["accuracy"]["value"] == pytest.approx(np.mean([row.correct for row in rows]), abs=1e-6)
    assert cell["tokens"] == pytest.approx(np.mean([row.tokens for row in rows]), abs=1e-6)
    assert cell["unparsed"] == pytest.approx(np.mean([row.parsed is None for row in rows]), abs=1e-6)
    assert cell["intervals"]["accuracy"]["low"] <= cell["intervals"]["accuracy"]["value"]


def test_a_contrast_and_its_difference_of_differences_are_what_the_hand_finds(tmp_path: Path) -> None:
    """Of four questions right: classes sft 3 on, 1 off; rft 2 on, 2 off. Spatial sft 4, 0; rft 1, 4."""
    job = small(tmp_path)
    right = {"classes": {"sft": (3, 1), "rft": (2, 2)}, "spatial": {"sft": (4, 0), "rft": (1, 4)}}
    for place, member in enumerate(job.members):
        for arm, counts in right[member.levels["task"]].items():
            count = counts[member.levels["thinking"] == "off"]
            answer_as(job, place, arm, [number < count for number in range(4)])
    rows = {(row["name"], row["within"]): row for row in shown(tmp_path / "out", job)["contrasts"]["rows"]}

    def values(name: str, within: str) -> list[float]:
        found = rows[name, within]["accuracy"]
        return [one["value"] for one in (*found["panels"].values(), found["between"])]

    name = "thinking: on − off"
    assert values(name, "sft") == [0.5, 1.0, -0.5]
    assert values(name, "rft") == [0.0, -0.75, 0.75]
    assert values(name, "sft and rft") == [0.25, 0.125, 0.125]
    assert values("sft − rft", "thinking on") == [0.25, 0.75, -0.5]
    assert values("sft − rft", "thinking off") == [-0.25, -1.0, 0.75]
    assert ("sft − length", "thinking off") not in rows
    assert rows[name, "sft"]["accuracy"]["panels"]["spatial"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert all(row["paired"] for row in rows.values())


def test_equal_answers_differ_by_nothing_in_every_resample_because_questions_are_paired(tmp_path: Path) -> None:
    job = small(tmp_path)
    for place in range(len(job.members)):
        for arm in ("sft", "rft"):
            answer_as(job, place, arm, [True, False, True, False])
    for row in shown(tmp_path / "out", job)["contrasts"]["rows"]:
        if "length" not in row["name"]:
            assert row["accuracy"]["panels"]["classes"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_other_questions_under_the_same_ids_are_resampled_on_their_own(tmp_path: Path) -> None:
    job = small(tmp_path)
    (run,) = (run for run in job.members[0].runs if run.arm == "sft")
    path = max((Path(run.path) / "evaluations").glob("*.parquet"))
    rows = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist([row | {"answer": "another"} for row in rows]), path)
    told = shown(tmp_path / "out", job)["contrasts"]["rows"]
    paired = {(row["name"], row["within"]): row["paired"] for row in told}
    assert not paired["thinking: on − off", "sft"]
    assert not paired["sft − rft", "thinking on"]
    assert paired["thinking: on − off", "rft"]
    assert "other questions, not paired" in page_of(tmp_path / "out")


def test_swapping_arms_turns_the_sign_and_nothing_else(tasks: tuple[Contrast, Path], tmp_path: Path) -> None:
    job, root = tasks
    swapped = job.model_copy(update={"members": tuple(reversed_arms(told) for told in job.members)})
    before, after = (
        {(row["name"], row["within"]): row for row in summary["contrasts"]["rows"]}
        for summary in (summary_of(root), shown(tmp_path, swapped))
    )
    for within in ("thinking on", "thinking off"):
        for measure in ("accuracy", "prior"):
            one, other = before["sft − rft", within][measure], after["rft − sft", within][measure]
            for a, b in ((one["panels"]["classes"], other["panels"]["classes"]), (one["between"], other["between"])):
                assert [a["value"], a["low"], a["high"]] == pytest.approx(
                    [-b["value"], -b["high"], -b["low"]], abs=1e-6
                )


def reversed_arms(told: Any) -> Any:
    arms = dict(reversed(told.study.arms.items()))
    return told.model_copy(update={"study": told.study.model_copy(update={"arms": arms})})


def test_the_headline_states_the_first_two_level_factor_with_an_interval(tasks: tuple[Contrast, Path]) -> None:
    summary = summary_of(tasks[1])
    together = summary["contrasts"]["rows"][0]
    assert (together["name"], together["within"]) == ("thinking: on − off", "sft and rft")
    assert together["settings"] == {"classes": 6, "spatial": 6}
    number = r"[+−]?0\.\d\d \(−?0\.\d\d to −?0\.\d\d\)"
    assert re.fullmatch(
        rf"With thinking on rather than off, target accuracy differs by {number} in classes and {number} in spatial; "
        r"arms: sft and rft\.",
        summary["headline"],
    )
    assert summary["headline"] in page_of(tasks[1])


def test_intervals_are_counted_and_those_that_leave_out_zero_are_marked(tasks: tuple[Contrast, Path]) -> None:
    summary, page = summary_of(tasks[1]), page_of(tasks[1])
    rows = summary["contrasts"]["rows"]
    found = [one for row in rows for one in (*row["accuracy"]["panels"].values(), row["accuracy"]["between"])]
    assert summary["contrasts"]["shown"]["accuracy"] == len(found) == 3 * (3 + 3 + 1)
    apart = sum(one["low"] > 0 or one["high"] < 0 for one in found)
    assert summary["contrasts"]["apart"]["accuracy"] == apart > 0
    assert f"{len(found)} intervals, of which {apart} leave" in page
    assert page.count('"apart">● ') == apart + summary["contrasts"]["apart"]["prior"]
    assert "ignifican" not in page[page.index("</style>") :]


def test_a_series_has_one_color_in_every_figure(tasks: tuple[Contrast, Path]) -> None:
    page = page_of(tasks[1])
    for place, series in enumerate(summary_of(tasks[1])["series"]):
        colors = set(re.findall(rf'<g class="(c\d)">(?:(?!</g>).)*?<title>{series["name"]},', page))
        colors |= set(re.findall(rf'<svg class="swatch (c\d)"[^>]*>(?:(?!</svg>).)*</svg>{series["name"]}<', page))
        assert colors == {f"c{place}"}


def test_the_halves_of_a_models_own_completions_are_compared(tmp_path: Path) -> None:
    """Right on the two longest of four: 1 in the longer half, 0 in the shorter."""
    job = small(tmp_path)
    for place, member in enumerate(job.members):
        if member.levels == {"task": "classes", "thinking": "on"}:
            answer_as(job, place, "sft", [False, True, False, True], [3, 9, 4, 20])
            answer_as(job, place, "rft", [False, True, False, True], [7, 7, 7, 7])
    found = {(half["panel"], half["series"]): half for half in shown(tmp_path / "out", job)["length_split"]}
    sft = found["classes", 0]
    assert (sft["shorter"], sft["longer"]) == ({"accuracy": 0, "tokens": 3.5}, {"accuracy": 1, "tokens": 14.5})
    assert ("classes", 2) not in found
    assert sft["difference"] is None


def test_the_difference_of_halves_lies_in_its_interval(tasks: tuple[Contrast, Path]) -> None:
    found = summary_of(tasks[1])["length_split"]
    assert {(half["panel"], half["series"]) for half in found} == set(product(("classes", "spatial"), range(5)))
    for half in found:
        gap = half["longer"]["accuracy"] - half["shorter"]["accuracy"]
        assert half["difference"]["value"] == pytest.approx(gap, abs=2e-6)
        assert half["difference"]["low"] <= gap <= half["difference"]["high"]


@pytest.mark.parametrize(
    ("tokens", "weights"),
    [([1, 2, 3, 4], [0, 0, 1, 1]), ([5, 5, 5], [0.5] * 3), ([1, 2, 2, 2, 9], [0, 0.5, 0.5, 0.5, 1])],
)
def test_ties_at_the_border_belong_to_both_halves_by_parts(tokens: list[int], weights: list[float]) -> None:
    assert longer_weights(np.array(tokens)).tolist() == pytest.approx(weights)


def test_a_sweep_over_seeds_is_averaged_in_one_panel_and_its_range_shown(tmp_path: Path) -> None:
    arms = five_arms().model_dump(mode="json")["arms"]
    factors = {"again": ("0", "1", "2")}
    sweep = swept(
        "seeds",
        factors,
        lambda levels: {"seed": int(levels["again"]), "arms": arms, "target": {"test": 20, "train": 50}},
    )
    job = finished_sweep(tmp_path, sweep, lambda member: FINAL_MODELS)
    summary = shown(tmp_path / "out", job)
    assert summary["roles"] == {"panel": None, "samples": None, "series": [], "repeats": ["again"]}
    assert list(summary["panels"]) == [""]
    cell = summary["panels"][""]["rows"][0]["cells"][""]
    assert cell["models"] == 3
    low, high = cell["ranges"]["accuracy"]
    assert low < cell["intervals"]["accuracy"]["value"] < high
    assert len(summary["contrasts"]["rows"]) == 10
    assert {row["settings"][""] for row in summary["contrasts"]["rows"]} == {3}
    assert summary["headline"].startswith("At the end of training, target accuracy ranges from ")
    assert "Means over again" in page_of(tmp_path / "out")
    assert "score 0." in page_of(tmp_path / "out")


def test_a_single_factor_that_changes_more_than_the_seed_makes_panels(tmp_path: Path) -> None:
    def rated(levels: dict[str, str]) -> dict[str, Any]:
        trainer = {"max_steps": 40, "learning_rate": levels["rate"]}
        return {"arms": {"one": [SFT[0] | {"trainer": trainer}]}, "target": {"test": 8, "train": 50}}

    sweep = swept("rates", {"rate": ("1e-4", "1e-3")}, rated)
    summary = shown(tmp_path / "out", finished_sweep(tmp_path, sweep, lambda member: {"one": FINAL_MODELS["self"]}))
    assert summary["roles"]["panel"] == "rate"
    assert summary["contrasts"]["rows"] == []
    assert 'id="contrasts"' not in page_of(tmp_path / "out")


def test_why_an_arm_of_a_sweep_did_not_finish_is_told(tmp_path: Path) -> None:
    job = small(tmp_path).model_copy(update={"failed": {"tasks-1: rft": "it was stopped"}})
    (tmp_path / "out").mkdir(exist_ok=True)
    contrast(job, tmp_path / "out")
    assert '<th>tasks-1: rft</th><td class="text">it was stopped</td>' in page_of(tmp_path / "out")


def test_a_failed_arm_a_member_without_arms_and_one_without_a_base_are_told_and_left_out(tmp_path: Path) -> None:
    job = small(tmp_path, {"task": ("classes", "spatial"), "thinking": ("on", "off"), "samples": ("1", "all")})
    gone = [
        {"rft"}
        if place == 0
        else {"sft", "rft"}
        if place == 2
        else {"sft", "rft", "length", None}
        if place == 5
        else set()
        for place in range(8)
    ]
    members = tuple(
        told.model_copy(update={"runs": tuple(run for run in told.runs if run.arm not in missing)})
        for told, missing in zip(job.members, gone, strict=True)
    )
    for run in members[4].runs:
        if run.arm:
            lines = (Path(run.path) / "metrics.jsonl").read_text().splitlines(keepends=True)
            (Path(run.path) / "metrics.jsonl").write_text("".join(line for line in lines if "train/reward" not in line))
    summary = shown(tmp_path / "out", job.model_copy(update={"members": members}))
    rows = {row["series"]: row["cells"] for row in summary["panels"]["classes"]["rows"]}
    assert rows["rft, thinking on"]["1"] is None
    assert rows["sft, thinking off"]["1"] is None
    assert rows["sft, thinking off"]["all"] is not None
    assert summary["members"][0]["missing"] == ["rft"]
    assert summary["members"][5]["missing"] == ["sft", "rft", "length"]
    pooled = next(row for row in summary["contrasts"]["rows"] if row["within"] == "rft")
    assert pooled["settings"] == {"classes": 1, "spatial": 1}
    assert "without rft" in page_of(tmp_path / "out")


def test_a_sweep_of_bases_alone_has_a_page_and_one_of_nothing_is_refused(tmp_path: Path) -> None:
    job = small(tmp_path)
    bases = tuple(told.model_copy(update={"runs": told.runs[:1]}) for told in job.members)
    summary = shown(tmp_path / "out", job.model_copy(update={"members": bases}))
    assert summary["headline"] == "No arm has finished training yet."
    assert "base, thinking off" in page_of(tmp_path / "out")
    nothing = tuple(told.model_copy(update={"runs": ()}) for told in job.members)
    with pytest.raises(UserError, match="no study of this sweep has been evaluated"):
        contrast(job.model_copy(update={"members": nothing}), tmp_path / "out")


def test_levels_and_names_are_escaped(tmp_path: Path) -> None:
    sweep = swept("odd", {"<b>": ("<i>", "x&y"), "between": ("on", "off")}, lambda levels: odd(levels["between"]))
    job = finished_sweep(tmp_path, sweep, lambda member: {"sft": FINAL_MODELS["self"]})
    contrast(job, tmp_path)
    assert "<b>:" not in page_of(tmp_path)
    assert "&lt;b&gt;: &lt;i&gt;" in page_of(tmp_path)


def odd(thinking: str) -> dict[str, Any]:
    return {"arms": {"sft": SFT}, "target": {"test": 6, "train": 5, "thinking": thinking == "on"}}


def test_the_quoted_answers_are_drawn_by_the_seed_at_the_most_training_questions(
    tasks: tuple[Contrast, Path], tmp_path: Path
) -> None:
    job, root = tasks
    page = page_of(root)
    assert page.count('class="puzzle case"') == 6
    cases = page[page.index('id="cases"') : page.index('id="members"')]
    assert cases.count("tokens</small>") == 6 * (5 + 2)
    contrast(job.model_copy(update={"seed": 5}), tmp_path)
    other = page_of(tmp_path)
    drawn = [re.findall(r'case">\n<div class="soft mono">([^<]*)', text) for text in (page, other)]
    assert drawn[0] != drawn[1]


def test_boxes_are_drawn_where_they_are_the_answer(tmp_path: Path) -> None:
    levels = {"thinking": "on"}
    sweep = swept("boxes", {"task": ("detection", "classes")}, lambda named: of_tasks(named | levels, 5))
    job = finished_sweep(tmp_path, sweep, lambda m: learned(m.model_copy(update={"levels": m.levels | levels})))
    contrast(job, tmp_path)
    cases = page_of(tmp_path)[page_of(tmp_path).index('id="cases"') :]
    first, second = cases.split("<h3>task: classes</h3>")
    # What cannot be read as boxes has none, and a shuffled box seldom can.
    assert first.count('class="right"/>') > first.count('class="outlines"') >= 3 * 2
    assert 'class="given"/>' in first
    assert "outlines" not in second


def test_alarms_are_listed_with_their_member_and_marked_in_the_charts(tasks: tuple[Contrast, Path]) -> None:
    summary, page = summary_of(tasks[1]), page_of(tasks[1])
    assert [(a["member"], a["arm"], a["step"], a["name"]) for a in summary["alarms"]] == [
        ("visual-spatial-off-all", "rft", 400, "length")
    ]
    assert [member["alarms"] for member in summary["members"]] == [0] * 11 + [1]
    assert page.count("<title>rft, thinking off, step 400, length</title>") == 2
    assert "holdfast report visual-spatial-off-all" in page


def test_the_terminal_table_follows_from_the_summary_alone(tasks: tuple[Contrast, Path], tmp_path: Path) -> None:
    console = Console(width=140, record=True, file=(tmp_path / "table.txt").open("w"))
    console.print(sweep_table(summary_of(tasks[1])))
    lines = console.export_text().splitlines()
    assert lines[0].split() == ["task", "arm", "base", "samples", "1", "samples", "4", "samples", "all"]
    assert len(lines) == 1 + 2 * 5
    assert re.search(r"classes +sft, thinking on +0\.\d\d ± 0\.\d\d", lines[1])


def test_a_contrast_needs_neither_torch_nor_a_plotting_library() -> None:
    code = "import sys, holdfast.report.sweep; print({'torch', 'matplotlib', 'mlflow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_rows_of_contrasts_follow_from_the_factors(tmp_path: Path) -> None:
    rows = contrast_rows(read_layout(small(tmp_path)))
    assert [(row.name, row.within) for row in rows] == [
        ("thinking: on − off", "sft and rft"),
        ("thinking: on − off", "sft"),
        ("thinking: on − off", "rft"),
        ("sft − rft", "thinking on"),
        ("sft − length", "thinking on"),
        ("rft − length", "thinking on"),
        ("sft − rft", "thinking off"),
    ]
