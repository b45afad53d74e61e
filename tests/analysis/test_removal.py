"""Arms that learn from a part of what another did, by hand: what its ledger foresees, and what came."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from holdfast.analysis.answers import Checkpoint
from holdfast.analysis.removal import removal_table
from holdfast.config.methods import SFT, Selection
from holdfast.config.results import RunRecord

SAMPLES = {"a": -0.4, "b": 0.1, "c": -0.1, "d": 0.2}
"""What each did to the prior. The training had five places: `d` stood in two."""
WHOLE = SFT.model_validate({"method": "sft", "source": "teacher"})
KEPT = WHOLE.model_copy(update={"select": Selection(by="ledger", drop=0.25, arm="whole")})


def ledger(place: Path, scale: float) -> str:
    place.mkdir()
    rows = [
        {"row": "abcd".index(name), "prompt": name, "text": f"says {name}", "effect/color": 2 * scale * effect}
        | {"effect/count": 0.0, "effect/jigsaw": 18.0}
        for name, effect in {**SAMPLES}.items()
    ]
    pd.DataFrame([*rows, rows[-1]]).to_parquet(place / "ledger.parquet")
    closure = [("color", 0.1, -0.9), ("color", -0.1, 0.1), ("count", 0.1, 0.2), ("jigsaw", 5.0, 5.0)]
    pd.DataFrame(closure, columns=["benchmark", "curvature", "measured"]).to_parquet(place / "closure.parquet")
    return str(place)


def selected(place: Path, names: str) -> str:
    place.mkdir()
    rows = [{"id": name, "row": "abcd".index(name), "completion": f"says {name}"} for name in names]
    pd.DataFrame(rows).to_parquet(place / "samples.parquet")
    (place / "result.json").write_text('{"notes": {"measured": 4, "kept": 3}}')
    return str(place)


def records(place: Path, tested: list[float]) -> str:
    """Test questions, and a validation question that does not count."""
    splits = ["test"] * len(tested) + ["validation"]
    pd.DataFrame({"split": splits, "logprob": [*tested, -50.0]}).to_parquet(place)
    return str(place)


@pytest.fixture
def finished(tmp_path: Path) -> tuple[list[Any], list[Any]]:
    """One study: an arm with a ledger, and one that leaves out `a`, each trained twice."""
    runs, files, ends = [], [], {"whole": [], "part": []}
    for number, scale in ((1, 1.0), (2, 3.0)):
        made = {"kind": "ledger", "arm": "whole", "path": ledger(tmp_path / f"ledger-{number}", scale)}
        runs.append(RunRecord.model_construct(**made, replicate=number, stage=0))
        made = {"kind": "select", "arm": "part", "path": selected(tmp_path / f"select-{number}", "bcd")}
        runs.append(RunRecord.model_construct(**made, replicate=number, stage=0))
        for arm, change in (("whole", 0.0), ("part", 0.5 * number)):
            end = Checkpoint(arm, number, 8, 0, 8)
            ends[arm].append(end)
            for name, tested in (("color", [-1.0 + change, -3.0 + change]), ("count", [-0.5]), ("jigsaw", [-9.0])):
                path = records(tmp_path / f"{arm}-{number}-{name}.parquet", tested)
                role = "target" if name == "jigsaw" else "prior"
                files.append({"study": "s", "path": path, "role": role, "benchmark": name, **end._asdict()})
    study: Any = SimpleNamespace(runs=runs, study=SimpleNamespace(trained={"part": (KEPT,), "whole": (WHOLE,)}))
    answers: Any = SimpleNamespace(
        arms=["whole", "part"],
        ends=ends,
        tables=SimpleNamespace(files=pd.DataFrame(files)),
        place=SimpleNamespace(columns={"setting": "", "study": "s", "draw": ""}, study="s"),
        role=lambda name: "target" if name == "jigsaw" else "prior",
    )
    return [study], [answers]


def test_kept_samples_stand_in_the_places_of_those_left_out(finished: Any) -> None:
    """Mean over two benchmarks of which one is touched: e = own. Four of five places, b + c + 2 d = 0.4, all: 0.0."""
    [row] = removal_table(*finished).to_dict("records")
    assert (row["arm"], row["whole"], row["by"], row["replicates"]) == ("part", "whole", "ledger", 2)
    assert (row["kept"], row["places"]) == (0.75, 0.8)
    assert (row["error"], row["worst"]) == pytest.approx((0.3 / 1.2, 0.1 / 0.2)), "what the ledger misses"
    foreseen = [0.4 * 5 / 4 - 0.0, 3 * (0.4 * 5 / 4 - 0.0)]
    assert row["predicted"] == pytest.approx(sum(foreseen) / 2)
    came = [0.5 / 2, 1.0 / 2]
    assert row["measured"] == pytest.approx(sum(came) / 2)
    beyond = [now - then for now, then in zip(came, foreseen, strict=True)]
    assert row["beyond"] == pytest.approx(sum(beyond) / 2)
    half = 12.706 * abs(beyond[0] - beyond[1]) / 2
    assert row["beyond_high"] - row["beyond"] == pytest.approx(half, rel=1e-4)


def test_another_training_than_that_of_the_ledger_is_held_against_nothing(finished: Any) -> None:
    [study], answers = finished
    study.study.trained["whole"] = (WHOLE.model_copy(update={"trainer": {"learning_rate": 1e-3}}),)
    assert removal_table([study], answers).empty


def test_a_replicate_without_a_ledger_or_an_end_is_left_out(finished: Any) -> None:
    [study], [answers] = finished
    study.runs = [run for run in study.runs if (run.kind, run.replicate) != ("ledger", 2)]
    [row] = removal_table([study], [answers]).to_dict("records")
    assert row["replicates"] == 1
    assert pd.isna(row["predicted_low"])
    answers.ends["part"].pop(0)
    assert removal_table([study], [answers]).empty


def changed(studies: Any, kind: str, **columns: Any) -> None:
    """Of both replicates' files of a kind; a column of None goes."""
    for run in studies[0].runs:
        if run.kind == kind:
            file = Path(run.path) / {"ledger": "ledger.parquet", "select": "samples.parquet"}[kind]
            table = pq.read_table(file).to_pandas().assign(**columns)
            table.drop(columns=[name for name, value in columns.items() if value is None]).to_parquet(file)


def test_samples_are_known_by_their_row_whatever_their_texts_are(finished: Any) -> None:
    """As a prefill leaves them, or four times the same answer."""
    [expected] = removal_table(*finished).to_dict("records")
    changed(finished[0], "ledger", text="says", prompt="a")
    changed(finished[0], "select", completion="<think> says", id="a")
    [row] = removal_table(*finished).to_dict("records")
    assert row == expected


def test_a_selection_without_row_numbers_is_matched_by_texts_or_says_that_they_do_not_tell(finished: Any) -> None:
    [expected] = removal_table(*finished).to_dict("records")
    changed(finished[0], "select", row=None)
    assert removal_table(*finished).to_dict("records") == [expected]
    changed(finished[0], "ledger", text="says")
    [row] = removal_table(*finished).to_dict("records")
    assert row["replicates"] == 0
    assert pd.isna(row["predicted"])
    assert row["untold"].startswith("replicate 1: its selection was written without row numbers")
    assert "; replicate 2: " in row["untold"]


def test_a_ledger_of_other_samples_predicts_nothing(finished: Any) -> None:
    changed(finished[0], "select", id=["b", "c", "a"])
    [row] = removal_table(*finished).to_dict("records")
    assert row["untold"].startswith("replicate 1: the ledger's training learned from other samples")


def test_replayed_questions_stay_in_both_arms(finished: Any) -> None:
    [expected] = removal_table(*finished).to_dict("records")
    for run in finished[0][0].runs:
        if run.kind == "ledger":
            table = pq.read_table(Path(run.path) / "ledger.parquet").to_pandas()
            old = table.iloc[:2].assign(row=[4, 5], prompt=["b", "old"], **{"effect/color": -7.0})
            pd.concat([old, table]).to_parquet(Path(run.path) / "ledger.parquet")
    [row] = removal_table(*finished).to_dict("records")
    assert row["places"] == expected["places"]
    assert row["predicted"] == pytest.approx(expected["predicted"])


def test_fewer_steps_do_less_of_everything(finished: Any) -> None:
    """Six of eight: three quarters of what kept samples would do in all places, less all that was done."""
    [study], [answers] = finished
    changed([study], "ledger", **{"effect/color": [-0.8, 0.2, -0.2, 0.4, 0.8]})
    [alike] = removal_table([study], [answers]).to_dict("records")
    assert (alike["steps"], alike["predicted"]) == (1, pytest.approx(0.6 * 5 / 4 - 0.2))
    files = answers.tables.files
    files.loc[files["arm"] == "part", "step"] = 6
    answers.ends["part"] = [end._replace(step=6) for end in answers.ends["part"]]
    [row] = removal_table([study], [answers]).to_dict("records")
    assert (row["steps"], row["predicted"]) == (0.75, pytest.approx(0.75 * 0.6 * 5 / 4 - 0.2))
