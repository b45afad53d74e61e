"""What influence leaves of every sample, as arrays: its dots with the benchmarks, and what magnitudes are means of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HALVES = ("a", "b")
ALONE = ("loglik_start", "certainty", "error")
"""Columns of sources.parquet that are the same for all benchmarks."""
Logged = Mapping[int, Mapping[str, float]]
"""By step: `BENCHMARK/MEASURE`, and `MEASURE` of the source alone."""


class Rows(NamedTuple):
    """A source's samples at all checkpoints, one row for each sample and checkpoint, all blocks of layers together.

    With g the gradient of the log-likelihood of a completion (summed over its tokens), w its weight, V a benchmark's
    mean gradient per token.
    """

    benchmarks: tuple[str, ...]
    """The target first."""
    steps: np.ndarray
    """The stage's own steps (rows,)."""
    samples: tuple[str, ...]
    prompts: tuple[str, ...]
    tokens: np.ndarray
    """(rows,)."""
    weights: np.ndarray
    """w: 1 for supervised samples, the advantage for rollouts (rows,)."""
    dots: np.ndarray
    """⟨g, V⟩ (rows, benchmarks)."""
    weighted_dots: np.ndarray
    """w⟨g, V⟩ (rows, benchmarks)."""
    adam_dots: np.ndarray
    """w⟨g, V / (√v̂ + ε)⟩; not a number where Adam's second moments v̂ are not known (rows, benchmarks)."""
    cosines: np.ndarray
    """w⟨g, V⟩ / (|w| ‖g‖ ‖V‖); not a number where w is 0 or ‖V‖ is not known (rows, benchmarks)."""
    norms2: np.ndarray
    """‖g‖² (rows,)."""
    in_sum: np.ndarray
    """w⟨g, G⟩ / ‖G‖ with G = Σ w g of the checkpoint's samples: what each adds to the length of their sum; not a number
    where it was not kept (rows,)."""
    loglik: np.ndarray
    """Of the completion, under the checkpoint (rows,)."""
    loglik_start: np.ndarray
    """The same under the model that the stage began with; not a number where it was not kept (rows,)."""
    certainty: np.ndarray
    """Mean over tokens of ‖π − e_y‖²; not a number where it was not kept (rows,)."""
    error: np.ndarray
    """Mean over tokens of ‖π − e_y‖; not a number where it was not kept (rows,)."""
    kernels2: np.ndarray
    """‖K‖²_F with a benchmark's questions, by random-logit probe (rows, benchmarks, probes)."""

    def idle(self) -> list[int]:
        """Steps at which no sample has a weight, as where all rollouts of each prompt were rewarded alike."""
        return sorted(set(self.steps.tolist()) - set(self.steps[self.weights != 0].tolist()))

    def where(self, kept: np.ndarray) -> Rows:
        """Some of the rows; `kept` is a mask (rows,)."""
        given = self._asdict()
        columns = {name: values[kept] for name, values in given.items() if isinstance(values, np.ndarray)}
        samples, prompts = _masked(self.samples, kept), _masked(self.prompts, kept)
        return self._replace(samples=samples, prompts=prompts, **columns)


def read_rows(directory: Path, measures: Logged, target: str) -> Rows:
    """Sum the blocks of every sample, in the file's order, and add what sources.parquet says of it."""
    table = pq.read_table(directory / "influence.parquet")
    names = [name.removeprefix("dot/") for name in table.column_names if name.startswith("dot/")]
    found = [name.removesuffix("/a") for name in names if name.endswith("/a")]
    benchmarks = tuple(sorted(found, key=lambda name: (name != target, name)))
    summed = _over_blocks(table)
    weights, norms2, loglik, whole = _columns(summed, ["weight", "norm2", "loglik", "dot/sum"]).T
    halves = _columns(summed, [f"dot/{name}/{half}" for name in benchmarks for half in HALVES])
    dots = halves.reshape(len(halves), len(benchmarks), len(HALVES)).mean(-1)
    scale = np.abs(weights) * np.sqrt(norms2)
    weighted_dots = weights[:, None] * dots
    unit_dots = np.divide(
        weighted_dots, scale[:, None], out=np.full_like(weighted_dots, np.nan), where=scale[:, None] > 0
    )
    steps, samples = summed["step"].to_numpy(), tuple(summed["sample"].to_pylist())
    (loglik_start, certainty, error), kernels2 = _sample_columns(
        directory / "sources.parquet", (steps, samples), benchmarks
    )
    return Rows(
        benchmarks=benchmarks,
        steps=steps,
        samples=samples,
        prompts=tuple(summed["prompt"].to_pylist()),
        tokens=summed["tokens"].to_numpy().astype(float),
        weights=weights,
        dots=dots,
        weighted_dots=weighted_dots,
        adam_dots=weights[:, None] * _columns(summed, [f"dot/adam/{name}" for name in benchmarks]),
        cosines=_cosines(unit_dots, steps, benchmarks, measures),
        norms2=norms2,
        in_sum=_in_sum(weights * whole, steps),
        loglik=loglik,
        loglik_start=loglik_start,
        certainty=certainty,
        error=error,
        kernels2=kernels2,
    )


def _masked(names: Sequence[str], kept: np.ndarray) -> tuple[str, ...]:
    return tuple(name for name, keep in zip(names, kept, strict=True) if keep)


def _over_blocks(table: pa.Table) -> pa.Table:
    keys = ["step", "sample", "prompt", "tokens", "weight", "loglik"]
    summed = [name for name in table.column_names if name == "norm2" or name.startswith("dot/")]
    grouped = table.group_by(keys, use_threads=False).aggregate([(name, "sum") for name in summed])
    return grouped.rename_columns([name.removesuffix("_sum") for name in grouped.column_names])


def _columns(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """(rows, names) of floats; not a number where a value or a whole column is missing."""
    nothing = np.full(len(table), np.nan)
    found = [table[name].to_numpy().astype(float) if name in table.column_names else nothing for name in names]
    return np.stack(found, axis=1) if found else np.empty((len(table), 0))


def _sample_columns(
    path: Path, rows: tuple[np.ndarray, Sequence[str]], benchmarks: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Of the samples (steps, names): `ALONE` (columns, rows), and squared kernels by probe."""
    table = pq.read_table(path)
    probes = sum(name.startswith(f"kernel2/{benchmarks[0]}/") for name in table.column_names) if benchmarks else 0
    names = [f"kernel2/{name}/{probe}" for name in benchmarks for probe in range(probes)]
    values = _columns(table, [*ALONE, *names])
    index = {key: at for at, key in enumerate(zip(table["step"].to_pylist(), table["sample"].to_pylist(), strict=True))}
    own = values[[index[key] for key in zip(rows[0].tolist(), rows[1], strict=True)]]
    cut = len(ALONE)
    return own[:, :cut].T, own[:, cut:].reshape(len(own), len(benchmarks), probes)


def _in_sum(dots: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """From w⟨g, G⟩, which add up to ‖G‖² at every step."""
    lengths2 = np.array([dots[steps == step].sum() for step in steps])
    return np.divide(dots, np.sqrt(np.maximum(lengths2, 0.0)), out=np.full_like(dots, np.nan), where=lengths2 > 0)


def _cosines(unit_dots: np.ndarray, steps: np.ndarray, benchmarks: Sequence[str], measures: Logged) -> np.ndarray:
    """w⟨g, V⟩ / (|w| ‖g‖) over ‖V‖, which is logged by step and benchmark."""
    cosines = np.full_like(unit_dots, np.nan)
    for step in np.unique(steps):
        rows, logged = steps == step, measures.get(int(step), {})
        for index, name in enumerate(benchmarks):
            if length := logged.get(f"{name}/benchmark_norm"):
                cosines[rows, index] = unit_dots[rows, index] / length
    return cosines
