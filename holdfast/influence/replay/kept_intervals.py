"""What the steps of an interval did, kept on disk, so that an interrupted ledger measures no sample twice.

W is no part of it: it is as large as the model for every benchmark, and going over the steps again without looking at
a sample makes it anew, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from holdfast.influence.replay.attribution import Attribution, Interval, SampleEffects

ACCOUNTS = Interval._fields[2:]


def attributed(attribution: Attribution, span: tuple[int, int], slopes: Mapping[str, Tensor], folder: Path) -> Interval:
    """The accounts of the steps after `span`'s first to its last; what they did was kept before, or is now.

    Intervals come as `Attribution.interval` wants them.
    """
    start, end = span
    path = folder / f"{start}-{end}.npz"
    steps = range(end, start, -1)
    if path.is_file():
        interval, samples, tokens = _read(path, start, end)
        attribution.again(interval, samples, slopes)
        attribution.tokens |= tokens
        return interval
    interval = attribution.interval(start, end, slopes)
    samples = attribution.samples[-len(steps) :]
    folder.mkdir(exist_ok=True)
    _write(path, interval, samples, {step: attribution.tokens[step] for step in steps if step in attribution.tokens})
    return interval


def _write(
    path: Path, interval: Interval, samples: Sequence[SampleEffects], tokens: Mapping[int, Sequence[np.ndarray]]
) -> None:
    arrays = {name: getattr(interval, name) for name in ACCOUNTS}
    for one in samples:
        arrays |= {f"effects/{one.step}": one.effects, f"clip/{one.step}": np.array(one.clip)}
    for step, rows in tokens.items():
        arrays |= {f"tokens/{step}": np.concatenate(rows), f"lengths/{step}": np.array([len(row) for row in rows])}
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    partial.replace(path)


def _read(path: Path, start: int, end: int) -> tuple[Interval, list[SampleEffects], dict[int, list[np.ndarray]]]:
    tokens: dict[int, list[np.ndarray]] = {}
    with np.load(path, allow_pickle=False) as found:
        interval = Interval(start, end, *(found[name] for name in ACCOUNTS))
        steps = range(end, start, -1)
        samples = [SampleEffects(step, found[f"effects/{step}"], float(found[f"clip/{step}"])) for step in steps]
        for step in steps:
            if f"tokens/{step}" in found:
                tokens[step] = np.split(found[f"tokens/{step}"], np.cumsum(found[f"lengths/{step}"])[:-1])
    return interval, samples, tokens
