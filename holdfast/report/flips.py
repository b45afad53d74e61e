"""The ledger of flips with what was said: flips.parquet has all of them, the page so many, drawn by the job's seed."""

from __future__ import annotations

import base64
import functools
import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
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
TEXTS = {"parsed": "said", "completion": "completion"}
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("study", "setting", "draw", "arm")),
        *((name, pa.int64()) for name in ("replicate", "stage", "stage_step", "step")),
        *((name, pa.string()) for name in ("benchmark", "role", "question", "prompt", "answer", "flip")),
        ("unreadable", pa.bool_()),
        *((name, pa.string()) for name in ("base_said", "base_completion", "said", "completion")),
        ("pushed_by", pa.list_(pa.struct([("sample", pa.string()), ("effect", pa.float64()), ("text", pa.string())]))),
    ]
)
"""`said` is what the grader read, null where nothing could be. `pushed_by`: where influence was traced, the samples
whose weight · ⟨g, V⟩ at the checkpoint before pushed the benchmark, not this question alone, hardest that way."""
Row = dict[str, Any]


def ledger(analysis: Analysis, path: Path) -> Row:
    """Write all flips; returns total, rows (those on the page), and the words that each column can be filtered by."""
    found, pushing = flips(analysis.tables), _pushing(analysis)
    drawn = set(random.Random(analysis.job.seed).sample(range(len(found)), min(SHOWN, len(found))))
    shown: list[Row] = []
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for (file, base), own in found.groupby(["file", "base"], sort=False):
            rows = _said(analysis, own, int(file), int(base))
            rows["pushed_by"] = [pushing(row) for row in rows.itertuples()]
            writer.write_table(pa.Table.from_pandas(rows, SCHEMA, preserve_index=False))
            shown += rows[[index in drawn for index in own.index]].to_dict("records")
    names = ("arm", "benchmark", "flip")
    return {"total": len(found), "rows": shown, "words": {name: list(found[name].unique()) for name in names}}


def _said(analysis: Analysis, own: pd.DataFrame, file: int, base: int) -> pd.DataFrame:
    """Flips of one file with the question, what was said and what the base said."""
    paths = analysis.tables.files["path"]
    now, before = _texts(paths[file]), _texts(paths[base])[list(TEXTS.values())].add_prefix("base_")
    joined = own.join(now, on="question").join(before, on="question").astype(object)
    return joined.where(joined.notna(), None)


@functools.lru_cache(maxsize=64)
def _texts(path: str) -> pd.DataFrame:
    """Of test questions by id, as long as a page can show."""
    columns = ["split", "id", "prompt", "answer", *TEXTS]
    table = pq.ParquetFile(path).read(columns).to_pandas().rename(columns=TEXTS)
    table = table[table.pop("split") == "test"].set_index("id")
    return table.apply(lambda column: column.str.slice(0, LONGEST))


def _pushing(analysis: Analysis) -> Callable[[Any], list[Row]]:
    """From a flip to the samples that pushed it; none where nothing was traced."""
    places = zip(analysis.tables.places, analysis.job.studies, strict=True)
    traced = {
        (place.study, run.arm, run.replicate, run.stage): Path(run.path)
        for place, study in places
        for run in study.runs
        if run.kind == "influence"
    }

    @functools.cache
    def hardest(path: Path, benchmark: str, since: int, harmful: bool) -> list[Row]:
        every = effects(path, lambda name: name == benchmark)
        steps = every.step[every.step <= since]
        every["effect"] = every.weight * every.dots
        sided = every[(every.effect < 0) if harmful else (every.effect > 0)]
        own = sided[sided.step == steps.max()]
        found = own.sort_values("effect", ascending=harmful, kind="stable")[:PUSHING]
        return found[["sample", "effect", "text"]].to_dict("records")

    def of(row: Any) -> list[Row]:
        path = traced.get((row.study, row.arm, row.replicate, row.stage))
        return hardest(path, row.benchmark, row.since, row.flip in (LOST, UNLEARNED)) if path else []

    return of
