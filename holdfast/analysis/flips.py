"""The ledger of flips: which test questions each training lost, got back or learned, from checkpoint to checkpoint."""

from __future__ import annotations

import numpy as np
import pandas as pd

from holdfast.analysis.table import BASE, PLACE, Tables

LOST, REGAINED, LEARNED, UNLEARNED = "lost", "regained", "learned", "unlearned"


def flips(tables: Tables) -> pd.DataFrame:
    """One row a test question whose verdict is another than at the evaluated checkpoint before, the base first.

    `PLACE` of the checkpoint, since (the stage_step before it, 0 where the stage begins), benchmark, role, question,
    flip (of what the base knew lost or regained, of what it did not learned or unlearned), unreadable (the answer now),
    and file and base, rows of `Tables.files` that have the answers.
    """
    files, records = tables.files, tables.records
    right, read = records["correct"].to_numpy(), records["parsed_ok"].to_numpy()
    bases = files[files["arm"] == BASE].reset_index().set_index(["study", "benchmark"])["index"]
    parts = [np.zeros((4, 0), int)]
    for (study, benchmark, _, _), own in files[files["arm"] != BASE].groupby(
        ["study", "benchmark", "arm", "replicate"], sort=False, observed=True
    ):
        path = np.array([bases[study, benchmark], *own.sort_values("step").index])
        start, stop = (files[name].to_numpy()[path] for name in ("start", "middle"))
        answers = right[start[:, None] + np.arange(stop[0] - start[0])]
        at, which = np.nonzero(answers[1:] != answers[:-1])
        parts.append(np.stack([np.full(len(at), path[0]), path[at], path[at + 1], which]))
    base, before, now, which = np.concatenate(parts, 1)
    start = files["start"].to_numpy()
    knew, knows = right[start[base] + which], right[start[now] + which]
    last, place = files.take(before).reset_index(drop=True), files.take(now).reset_index(drop=True)
    words = np.select([knew & ~knows, knew, knows], [LOST, REGAINED, LEARNED], UNLEARNED)
    return place[[*PLACE, "benchmark", "role"]].assign(
        since=np.where((last["arm"] == BASE) | (last["stage"] != place["stage"]), 0, last["stage_step"]),
        question=records["question"].to_numpy()[start[base] + which],
        flip=words,
        unreadable=~read[start[now] + which],
        file=now,
        base=base,
    )
