"""The ledger on disk: what each sample of each step did to every benchmark, and how the accounts close.

ledger.parquet has a row for every sample of every step, closure.parquet one for every interval of every benchmark. All
effects are in nats per token of the benchmark's reference completions; below 0, the benchmark was forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.benchmarks import catalog
from holdfast.influence.replay.attribution import Interval, SampleEffects
from holdfast.influence.replay.nodes import Nodes
from holdfast.influence.replay.taught import StepSamples

LEDGER, CLOSURE = "ledger.parquet", "closure.parquet"
ACCOUNTS = ("samples", "penalty", "decay", "rounding", "curvature")
"""Of a whole training; their sum is the measured change. `samples` is after clipping, with what momentum did later."""

ROW = pa.schema(
    [
        ("step", pa.int64()),
        ("row", pa.int64()),
        ("prompt", pa.string()),
        ("source", pa.string()),
        ("tokens", pa.int64()),
        ("advantage", pa.float64()),
        ("correct", pa.bool_()),
        ("clip", pa.float64()),
        ("text", pa.string()),
    ]
)
"""`row` is a supervised sample's place among the training rows, which may stand twice in a step, or a rollout's number;
`clip` the factor of gradient
clipping that the effects hold already. Effects, what momentum did with them later among them, stand in
`effect/BENCHMARK`."""
EFFECT = "effect/"
REPLAY = "replay"
"""The source of an old question that a stage learns again."""
INTERVAL = ("gradients", "clipping", "penalty", "decay", "carried", "rounding")


def closure_rows(nodes: Nodes, intervals: Sequence[Interval]) -> list[dict[str, Any]]:
    """One for every way between neighbouring nodes of every benchmark; `gradients` … `curvature` sum to `measured`.

    `curvature` is what V misses, the error of the closure.
    """
    return [
        {
            "benchmark": name,
            "start": start,
            "step": end,
            "measured": gap.measured,
            **{
                account: sum(float(getattr(one, account)[index]) for one in intervals if _within(one, start, end))
                for account in INTERVAL
            },
            "curvature": gap.measured - gap.predicted,
        }
        for index, (name, own) in enumerate(nodes.benchmarks.items())
        for (start, end), gap in sorted(own.gaps.items())
    ]


def _within(one: Interval, start: int, end: int) -> bool:
    return start <= one.start and one.end <= end


def totals(
    source: str, benchmarks: Sequence[str], closure: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str], dict[str, float]]:
    """Of the whole training by source and benchmark: `samples`; and under the stage's own source what belongs to no
    sample, with `measured`, and `error`, the share that the closure misses. All sources' accounts sum to `measured`."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for name in benchmarks:
        own = [row for row in closure if row["benchmark"] == name]
        accounts = ("measured", "penalty", "decay", "rounding", "curvature")
        found[source, name] = {key: sum(row[key] for row in own) for key in accounts} | {"samples": 0.0}
        missed, changed = (sum(abs(row[key]) for row in own) for key in ("curvature", "measured"))
        found[source, name]["error"] = missed / changed if changed else float("nan")
        for row in rows:
            one = found.setdefault((row["source"], name), {"samples": 0.0})
            one["samples"] += row[f"{EFFECT}{name}"]
    return found


def ledger_rows(
    sources: Mapping[str, str], benchmarks: Sequence[str], effects: Sequence[SampleEffects], samples: StepSamples
) -> Iterator[dict[str, Any]]:
    """In the order of the steps. `sources` are by the benchmark of a question; of others it is replayed."""
    for one in sorted(effects, key=lambda found: found.step):
        for place, sample in enumerate(samples.taught[one.step - 1]):
            question, text = samples.questions[sample.question], samples.completion(sample)
            row: dict[str, Any] = {
                "step": one.step,
                "row": sample.row,
                "prompt": sample.question,
                "source": sources.get(question.benchmark, REPLAY),
                "tokens": len(sample.completion),
                "advantage": sample.advantage,
                "correct": catalog.grade(question.grader, text, question.answer, question.accepted).correct,
                "clip": one.clip,
                "text": text,
            }
            row |= {f"{EFFECT}{name}": float(one.effects[place, index]) for index, name in enumerate(benchmarks)}
            yield row


def write(out: Path, rows: Sequence[Mapping[str, Any]], closure: Sequence[Mapping[str, Any]]) -> None:
    """Both tables, each complete or not at all."""
    effects = [name for name in rows[0] if name.startswith(EFFECT)]
    schema = pa.schema([*ROW, *(pa.field(name, pa.float64()) for name in effects)])
    for name, table in (
        (LEDGER, pa.Table.from_pylist(list(rows), schema)),
        (CLOSURE, pa.Table.from_pylist(list(closure))),
    ):
        partial = (out / name).with_suffix(".partial")
        pq.write_table(table, partial)
        partial.replace(out / name)


def by_row(ledger: Path, benchmarks: Sequence[str]) -> dict[int, float]:
    """Of each row of a supervised training, all that it did in all its steps, in the mean over benchmarks."""
    table = pq.read_table(ledger).to_pandas()
    effect = np.mean([table[f"{EFFECT}{name}"] for name in benchmarks], axis=0)
    return table.assign(effect=effect).groupby("row")["effect"].sum().to_dict()
