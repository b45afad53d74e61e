"""Ledgers of two stages by hand, as the report's accounts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from ledgers import write_ledger

from holdfast.analysis.ledger import ACCOUNTS, benchmark_table, ledger_table, source_table, token_table
from holdfast.config.results import RunRecord
from holdfast.report.figures import waterfall

FIRST = {0: -0.4, 1: 0.2}
"""What the first step did, by stage."""


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Any, Any]:
    """The studies, and their answers."""
    runs = [
        RunRecord.model_construct(kind="ledger", arm="a", replicate=1, stage=stage, path=path)
        for stage, first in FIRST.items()
        for path in [write_ledger(tmp_path / f"{stage}", ["color", "count"], "jigsaw", first)]
    ]
    answers: Any = SimpleNamespace(
        arms=["a"],
        place=SimpleNamespace(columns={"setting": "", "study": "s", "draw": ""}),
        role=lambda name: "target" if name == "jigsaw" else "prior",
    )
    return [SimpleNamespace(runs=runs)], [answers]


def test_accounts_of_every_stage_are_means_over_prior_benchmarks_and_sum_to_what_was_measured(finished: Any) -> None:
    table = ledger_table(*finished)
    for stage, first in FIRST.items():
        own = table[table.stage == stage].set_index("account")
        assert own.value["first third"] == pytest.approx((first + 0.1) / 2)
        assert own.right["second third"] == pytest.approx((-0.2 + 0.1) / 2)
        assert own.wrong["last third"] == pytest.approx((0.3 + 0.1) / 2)
        assert own.value["KL penalty"] == pytest.approx(-0.04 / 2)
        assert own.value[list(ACCOUNTS)].sum() == pytest.approx(own.value["measured"])
        assert own.error["measured"] == pytest.approx(0.02 / abs(first + 0.4 - 0.05 + 0.02))


def test_intervals_are_students_over_replicates(finished: Any, tmp_path: Path) -> None:
    """Of two replicates x and y, (x + y) / 2 ± 12.706 · |x − y| / 2."""
    [study], answers = finished
    path = write_ledger(tmp_path / "again", ["color", "count"], "jigsaw", -0.2)
    study.runs.append(RunRecord.model_construct(kind="ledger", arm="a", replicate=2, stage=0, path=path))
    own = ledger_table([study], answers).set_index(["stage", "account"]).loc[0, "first third"]
    assert own.value == pytest.approx((-0.3 - 0.1) / 4)
    assert own.value_high - own.value == pytest.approx(12.706 * 0.1 / 2, rel=1e-4)
    assert (own.took, own.gave) == pytest.approx(((-0.3 - 0.1) / 4, 0))
    kinds = token_table([study], answers).set_index(["stage", "kind"]).loc[0, "reasoning"]
    assert kinds.prior_high - kinds.prior == pytest.approx(0.75 * 12.706 * 0.1 / 2, rel=1e-4)
    assert ledger_table([study], answers).query("stage == 1").value_low.isna().all()


def test_kinds_of_tokens_sum_to_what_samples_did(finished: Any) -> None:
    table, tokens = ledger_table(*finished), token_table(*finished)
    for stage, first in FIRST.items():
        own = tokens[tokens.stage == stage].set_index("kind")
        samples = table[(table.stage == stage) & table.account.str.endswith("third")].value.sum()
        assert own.prior.sum() == pytest.approx(samples)
        assert own.prior["reasoning"] == pytest.approx(0.75 * (first + 0.4) / 2)
        assert own.target["answer"] == pytest.approx(0.25 * 54)
        assert own.tokens.to_dict() == {"format": 3, "reasoning": 3, "answer": 3, "end": 3}


def test_every_benchmark_has_its_own_sum_and_error(finished: Any) -> None:
    table, accounts = benchmark_table(*finished), ledger_table(*finished)
    first = table[table.stage == 0].set_index("benchmark")
    assert first.role.to_dict() == {"color": "prior", "count": "prior", "jigsaw": "target"}
    summed = first[["samples", "penalty", "decay", "rounding", "curvature"]].sum(axis=1)
    assert summed["color"] == pytest.approx(first.measured["color"])
    assert first.clipping["color"] == 0.3
    prior = first[first.role == "prior"]
    of_all = accounts[accounts.stage == 0].set_index("account")
    assert prior.measured.mean() == pytest.approx(of_all.value["measured"])
    assert first.error["color"] == pytest.approx(0.02 / abs(-0.4 + 0.4 - 0.03))
    assert pd.isna(first.error["count"]), "nothing changed"


def test_the_worst_benchmarks_error_stands_beside_that_of_all(finished: Any) -> None:
    [study], answers = finished
    place = Path(study.runs[0].path) / "closure.parquet"
    closure = pq.read_table(place).to_pandas()
    closure.loc[closure.benchmark == "count", ["curvature", "measured"]] = [0.0, 0.09]
    closure.loc[closure.benchmark == "color", ["curvature", "measured"]] = [0.005, 0.01]
    closure.to_parquet(place)
    for table in (ledger_table, token_table, source_table):
        own = table([study], answers).query("stage == 0").iloc[0]
        assert (own.error, own.worst) == pytest.approx((0.05, 0.5))


def test_what_replayed_questions_did_stands_by_its_source(finished: Any) -> None:
    """The first row of the table is one, and the ledger is that of the stage's own source all the same."""
    [study], answers = finished
    place = Path(study.runs[0].path) / "ledger.parquet"
    rows = pq.read_table(place).to_pandas()
    rows.assign(source=["replay", "answers", "answers"]).to_parquet(place)
    table = source_table([study], answers).query("stage == 0").set_index("of")
    assert set(table.source) == {"answers"} == set(ledger_table([study], answers).source)
    assert table.samples.to_dict() == {"replay": 1, "answers": 2}
    assert table.value.to_dict() == pytest.approx({"replay": -0.3 / 2, "answers": 0.3 / 2})
    assert (table.took["answers"], table.gave["answers"]) == pytest.approx((-0.1 / 2, 0.4 / 2))


def test_a_figure_of_two_stages_has_a_panel_for_each(finished: Any) -> None:
    table = ledger_table(*finished)
    named = table.assign(arm=[f"{row.arm}, stage {row.stage + 1}" for row in table.itertuples()])
    panels = waterfall(named, ACCOUNTS).axes
    assert [axes.get_title() for axes in panels] == ["a, stage 1", "a, stage 2"]
