"""Ledgers of two stages by hand, as the report's accounts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from holdfast.analysis.ledger import ACCOUNTS, ledger_table
from holdfast.config.jobs import RunRecord
from holdfast.report.figures import waterfall

CLOSURE = {"start": 0, "step": 3, "decay": -0.01, "rounding": 0.0, "penalty": -0.03, "penalty_later": -0.01}


def ledger(place: Path, first: float) -> str:
    """Three steps of one sample each; of two prior benchmarks the second is not changed at all."""
    place.mkdir()
    rows = [
        {"step": step, "source": "answers", "correct": step < 3, "own/color": effect, "later/color": 0.1}
        | {"own/count": 0.0, "later/count": 0.0, "own/jigsaw": 9.0, "later/jigsaw": 9.0}
        for step, effect in ((1, first), (2, -0.2), (3, 0.3))
    ]
    pd.DataFrame(rows).to_parquet(place / "ledger.parquet")
    samples = first + 0.4
    measured = samples + sum(CLOSURE[name] for name in ("decay", "penalty", "penalty_later")) + 0.02
    closed = [{"benchmark": "color", **CLOSURE, "curvature": 0.02, "measured": measured}]
    closed += [{"benchmark": "count", **dict.fromkeys(CLOSURE, 0.0), "curvature": 0.0, "measured": 0.0}]
    closed += [{"benchmark": "jigsaw", **CLOSURE, "curvature": 1.0, "measured": 19.0}]
    pd.DataFrame(closed).to_parquet(place / "closure.parquet")
    return str(place)


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    runs = [
        RunRecord.model_construct(kind="ledger", arm="a", replicate=1, stage=stage, path=ledger(tmp_path / name, first))
        for stage, name, first in ((0, "zero", -0.4), (1, "one", 0.2))
    ]
    answers: Any = SimpleNamespace(
        arms=["a"],
        place=SimpleNamespace(columns={"setting": "", "study": "s", "draw": ""}),
        role=lambda name: "target" if name == "jigsaw" else "prior",
    )
    study: Any = SimpleNamespace(runs=runs)
    return ledger_table([study], [answers])


def test_accounts_of_every_stage_are_means_over_prior_benchmarks_and_sum_to_what_was_measured(table: pd.DataFrame):
    for stage, first in ((0, -0.4), (1, 0.2)):
        own = table[table.stage == stage].set_index("account")
        assert own.value["first third"] == pytest.approx((first + 0.1) / 2)
        assert own.right["second third"] == pytest.approx((-0.2 + 0.1) / 2)
        assert own.wrong["last third"] == pytest.approx((0.3 + 0.1) / 2)
        assert own.value["KL penalty"] == pytest.approx(-0.04 / 2)
        assert own.value[list(ACCOUNTS)].sum() == pytest.approx(own.value["measured"])
        assert own.error["measured"] == pytest.approx(0.02 / abs(first + 0.4 - 0.05 + 0.02))


def test_a_figure_of_two_stages_has_a_panel_for_each(table: pd.DataFrame):
    named = table.assign(arm=[f"{row.arm}, stage {row.stage + 1}" for row in table.itertuples()])
    panels = waterfall(named, ACCOUNTS).axes
    assert [axes.get_title() for axes in panels] == ["a, stage 1", "a, stage 2"]
