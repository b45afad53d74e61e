"""Samples of a ledger with each token coloured by what it did to the prior, beside the picture that they are about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from holdfast.analysis.ledger import TOKENS, has_tokens
from holdfast.config.results import FinishedStudy
from holdfast.report.examples import boards, of_stage

LEAST = 0.02
"""Of the darkest token; what did less has no colour."""
Row = dict[str, Any]


def colored(study: FinishedStudy) -> list[Row]:
    """Of every accounted stage's first replicate the steps of a sample that took and gave the prior most.

    A row has label, arm, and shown: for both of them effect (nats per token of the prior), step, prompt, pictures, and
    tokens with text, kind, effect and share (of the darkest token of the two, signed).
    """
    runs = [one for one in study.runs if one.kind == "ledger" and one.replicate == 1 and one.arm in study.study.arms]
    return [_stage(run, study) for run in runs if has_tokens(run)]


def _stage(run: Any, study: FinishedStudy) -> Row:
    tokens = pq.read_table(Path(run.path) / TOKENS, columns=["step", "row", "token", "kind", "prior"]).to_pandas()
    sums = tokens.groupby(["step", "row"])["prior"].sum()
    places = list(dict.fromkeys([sums.idxmin(), sums.idxmax()]))
    samples = pq.read_table(Path(run.path) / "ledger.parquet", columns=["step", "row", "prompt"]).to_pandas()
    prompts = samples.set_index(["step", "row"])["prompt"]
    pictures = boards(study, run, {prompts[place] for place in places})
    own = tokens.set_index(["step", "row"]).sort_index()
    darkest = max(float(own.loc[[place], "prior"].abs().max()) for place in places) or 1.0
    shown = []
    for place in places:
        said = own.loc[[place]]
        shares = said.prior / darkest
        known = zip(said.token, said.kind, said.prior, shares.where(shares.abs() >= LEAST, 0.0), strict=True)
        shown.append(
            {
                "effect": float(sums[place]),
                "step": place[0],
                "prompt": prompts[place],
                "pictures": pictures.get(prompts[place]),
                "tokens": [dict(zip(("text", "kind", "effect", "share"), one, strict=True)) for one in known],
            }
        )
    return of_stage(run, study) | {"shown": shown}
