"""What the terminal shows of names and paths that look like markup."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from flows.commands import results


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the console of results.py writes, with its own settings."""
    written = io.StringIO()
    monkeypatch.setattr(results.console, "_file", written)
    monkeypatch.setattr(results.console, "width", 200)
    assert isinstance(results.console, Console)
    return written


METRICS = {"target/jigsaw/score": 0.5, "prior/mean/accuracy": 0.9, "retention": 1.0, "forgetting/mean": 0.0}


def test_a_report_path_and_an_arm_keep_their_brackets(shown: io.StringIO, tmp_path: Path):
    retention = {"value": 0.9, "low": 0.85, "high": 0.95}
    score = {"mean": 0.5, "low": 0.4, "high": 0.6}
    arm = {"replicates": 3, "metrics": METRICS, "score": score, "intervals": {"retention": retention}}
    summary = {
        "target": {"benchmark": "jigsaw"},
        "base": {"metrics": METRICS},
        "arms": {"[bold]": arm},
    }
    place = tmp_path / "runs [x] [/x] :bug:"
    place.mkdir(parents=True)
    (place / "summary.json").write_text(json.dumps(summary))
    results.print_outcome(place / "report.html", place / "summary.json")
    assert f"Report: {place}/report.html\n" in shown.getvalue()
    assert "[bold]" in shown.getvalue()
    assert "0.90 ± 0.05" in shown.getvalue()
    assert "[dim]" not in shown.getvalue()


def test_a_run_keeps_the_brackets_of_its_name_and_tags(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch):
    run = SimpleNamespace(
        info=SimpleNamespace(run_id="0123", run_name="a[0]", status="FINISHED"),
        data=SimpleNamespace(tags={"holdfast.command": "holdfast study x[1].yaml [/b]"}, metrics={"a [x]": 1.0}),
    )
    store = SimpleNamespace(run=lambda _prefix: run, artifacts=SimpleNamespace(of=lambda _run: Path("mlruns/[x]")))
    monkeypatch.setattr(results, "open_store", lambda _root: store)
    results.show_run("0123", Path())
    for text in ("0123 (a[0])", "holdfast study x[1].yaml [/b]", "mlruns/[x]", "a [x]"):
        assert text in shown.getvalue()
