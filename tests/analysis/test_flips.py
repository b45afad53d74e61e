from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from synthetic_studies import Shape, Truth, compare_job, finished_study

from holdfast.analysis.flips import flips
from holdfast.analysis.table import PLACE, Tables, load


def tables(verdicts: dict[tuple[str, int, int], list[str]]) -> Tables:
    """Of one benchmark: by arm, stage and step, a letter a question: r right, w wrong, u unreadable."""
    files: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    for (arm, stage, step), letters in verdicts.items():
        place = dict.fromkeys(PLACE, "") | {"study": "s", "arm": arm, "replicate": int(arm != "base")}
        place |= {"stage": stage, "stage_step": step - 10 * stage, "step": step}
        start = len(records)
        files.append(place | {"benchmark": "color", "role": "prior", "start": start, "middle": start + len(letters)})
        records += [
            {"correct": letter == "r", "parsed_ok": letter != "u", "question": f"q{place}"}
            for place, letter in enumerate(letters)
        ]
    nothing = pd.DataFrame()
    return Tables(pd.DataFrame(records), pd.DataFrame(files), *[nothing] * 5, places=())


def test_flips_of_a_table_by_hand() -> None:
    found = flips(
        tables(
            {
                ("base", 0, 0): list("rrrw"),
                # Of two stages; the file of the later checkpoint stands first.
                ("sft", 1, 15): list("rwrw"),
                ("sft", 0, 10): list("wruw"),
                ("sft", 0, 5): list("rruw"),
                ("rft", 0, 5): list("rrrr"),
                ("rft", 0, 9): list("rrru"),
            }
        )
    )
    rows = found[["arm", "step", "stage", "since", "question", "flip", "unreadable"]].itertuples(index=False)
    assert {tuple(row) for row in rows} == {
        ("sft", 5, 0, 0, "q2", "lost", True),
        ("sft", 10, 0, 5, "q0", "lost", False),
        ("sft", 15, 1, 0, "q0", "regained", False),
        ("sft", 15, 1, 0, "q1", "lost", False),
        ("sft", 15, 1, 0, "q2", "regained", False),
        ("rft", 5, 0, 0, "q3", "learned", False),
        ("rft", 9, 0, 5, "q3", "unlearned", True),
    }


def test_without_a_changed_verdict_there_is_no_flip() -> None:
    same = {("base", 0, 0): ["r", "w"], ("sft", 0, 5): ["r", "u"]}
    assert flips(tables(same)).empty
    assert flips(tables({("base", 0, 0): ["r"]})).empty


def test_lost_less_regained_is_what_is_missing_at_the_end(tmp_path: Path) -> None:
    study = finished_study(tmp_path / "a", {"rft": Truth(), "self": Truth(retention=0.4)}, Shape(target=20, prior=30))
    read = load(compare_job(study).studies)
    found = flips(read)
    asked = [one for one in study.evaluated if (one.kind, one.benchmark) == ("records", "color")]
    whose = {(one.arm, one.replicate, one.step): one.file.path for one in asked}
    knew, knows = (
        pq.read_table(whose[place]).to_pandas().query("split == 'test'").set_index("id").correct
        for place in ((None, 0, 0), ("self", 2, 32))
    )
    own = found[(found.arm == "self") & (found.replicate == 2) & (found.benchmark == "color")]
    signed = own.flip.map({"lost": -1, "regained": 1, "learned": 1, "unlearned": -1}).groupby(own.question).sum()
    assert own.flip.eq("lost").any()
    assert np.array_equal(signed.reindex(knew.index, fill_value=0), knows.astype(int) - knew.astype(int))
