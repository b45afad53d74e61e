"""The ledger of flips with what was said: flips.parquet has all of them, the page so many, drawn by the job's seed."""

from __future__ import annotations

import base64
import functools
import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from holdfast.analysis.flips import LOST, UNLEARNED, flips
from holdfast.analysis.study import Analysis
from holdfast.report.examples import LONGEST, effects

FILE = "flips.parquet"
SHOWN, PUSHING = 500, 3
"""Flips on the page, and samples that are named for each."""
SCRIPT = Path(__file__).with_name("flips.js.j2").read_text(encoding="utf-8")
POLICY = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
"""By which a browser runs this script in the page and no other."""
TEXTS, NAMED = ("prompt", "answer", "parsed", "completion"), {"parsed": "said"}
PUSHED = pa.list_(pa.struct([("sample", pa.string()), ("effect", pa.float64()), ("text", pa.string())]))
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("study", "setting", "draw", "arm")),
        *((name, pa.int64()) for name in ("replicate", "stage", "stage_step", "step")),
        *((name, pa.string()) for name in ("benchmark", "role", "question", "prompt", "answer", "flip")),
        ("unreadable", pa.bool_()),
        *((name, pa.string()) for name in ("base_said", "base_completion", "said", "completion")),
        ("pushed_by", PUSHED),
    ]
)
"""`said` is what the grader read, null where nothing could be. `pushed_by`: where influence was traced, the samples
whose weight · ⟨g, V⟩ at the checkpoint before pushed the benchmark, not this question alone, hardest that way."""
Row = dict[str, Any]


def ledger(analysis: Analysis, path: Path) -> Row:
    """Write all flips; returns total, rows (those on the page), and the words that columns can be filtered by."""
    found, pushed = flips(analysis.tables), _pushed(analysis)
    paths = analysis.tables.files["path"]
    drawn = np.zeros(len(found), bool)
    drawn[random.Random(analysis.job.seed).sample(range(len(found)), min(SHOWN, len(found)))] = True
    harmful = found["flip"].isin([LOST, UNLEARNED]).to_numpy(int)
    places = pa.Table.from_pandas(found[[name for name in SCHEMA.names if name in found]], preserve_index=False)
    shown: list[Row] = []
    with pq.ParquetWriter(path, SCHEMA) as writer:
        # A checkpoint's flips of one benchmark stand together.
        for file, own in found.groupby("file", sort=False):
            now, before = (_texts(paths[one], own["question"]) for one in (file, own["base"].iloc[0]))
            by = pa.array([pushed(own.iloc[0], harm) for harm in (False, True)], PUSHED)
            columns = {name: now[name] for name in ("prompt", "answer", "said", "completion")}
            columns |= {f"base_{name}": before[name] for name in ("said", "completion")}
            columns["pushed_by"] = by.take(harmful[own.index])
            rows = places.slice(own.index[0], len(own))
            for name, values in columns.items():
                rows = rows.append_column(name, values)
            writer.write_table(rows.select(SCHEMA.names).cast(SCHEMA))
            shown += rows.filter(drawn[own.index]).to_pylist()
    names = ("arm", "benchmark", "flip")
    return {"total": len(found), "rows": shown, "words": {name: list(found[name].unique()) for name in names}}


def _texts(path: str, questions: pd.Series) -> dict[str, pa.ChunkedArray]:
    """Of some test questions, as long as a page can show: prompt, answer, said, completion."""
    ids, table = _tested(path)
    rows = table.take(ids.get_indexer(questions))
    return {NAMED.get(name, name): pc.utf8_slice_codeunits(rows[name], 0, LONGEST) for name in TEXTS}


@functools.lru_cache(maxsize=16)
def _tested(path: str) -> tuple[pd.Index, pa.Table]:
    """The ids of a file's test questions, and their rows."""
    table = pq.ParquetFile(path).read(["split", "id", *TEXTS])
    table = table.filter(pc.equal(table["split"], "test"))
    return pd.Index(table["id"].to_pandas()), table


def _pushed(analysis: Analysis) -> Callable[[Any, bool], list[Row]]:
    """From a flip, and whether it did harm, to the samples that pushed; none where nothing was traced."""
    traced = {
        (place.study, run.arm, run.replicate, run.stage): Path(run.path)
        for place, study in zip(analysis.tables.places, analysis.job.studies, strict=True)
        for run in study.runs
        if run.kind == "influence"
    }

    def of(row: Any, harmful: bool) -> list[Row]:
        path = traced.get((row.study, row.arm, row.replicate, row.stage))
        if path is None:
            return []
        every = effects(path, lambda name: name == row.benchmark)
        every["effect"] = every.weight * every.dots
        last = every.step[every.step <= row.since].max()
        own = every[(every.step == last) & ((every.effect < 0) if harmful else (every.effect > 0))]
        hardest = own.sort_values("effect", ascending=harmful, kind="stable")[:PUSHING]
        return hardest[["sample", "effect", "text"]].to_dict("records")

    return of
