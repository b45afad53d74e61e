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
    found = [_stage(run, study) for run in runs if has_tokens(run)]
    # A stage of which every rollout was masked learned from no token.
    return [row for row in found if row["shown"]]


def _stage(run: Any, study: FinishedStudy) -> Row:
    tokens = pq.read_table(Path(run.path) / TOKENS, columns=["place", "token", "kind", "prior"]).to_pandas()
    samples = pq.read_table(Path(run.path) / "ledger.parquet", columns=["step", "prompt", "tokens"]).to_pandas()
    # A row may stand twice in a step. Both tables have samples in one order, those without a token in one alone.
    samples = samples[samples.tokens > 0].reset_index(drop=True)
    tokens["sample"] = (tokens.place == 0).cumsum() - 1
    own = tokens.groupby("sample")
    sums = own["prior"].sum()
    places = list(dict.fromkeys([sums.idxmin(), sums.idxmax()])) if len(sums) else []
    pictures = boards(study, run, set(samples.prompt[places]))
    darkest = max((float(own.get_group(place)["prior"].abs().max()) for place in places), default=0.0) or 1.0
    shown = []
    for place in places:
        said = own.get_group(place)
        prompt = samples.prompt[place]
        shares = said.prior / darkest
        known = zip(said.token, said.kind, said.prior, shares.where(shares.abs() >= LEAST, 0.0), strict=True)
        shown.append(
            {
                "effect": float(sums[place]),
                "step": int(samples.step[place]),
                "prompt": prompt,
                "pictures": pictures.get(prompt),
                "tokens": [dict(zip(("text", "kind", "effect", "share"), one, strict=True)) for one in known],
            }
        )
    return of_stage(run, study) | {"shown": shown}
