"""What a ledger of three steps leaves, each of one sample, by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

NOTHING = dict.fromkeys(("clipping", "decay", "rounding", "penalty", "curvature", "measured"), 0.0)
ACCOUNTS = {"clipping": 0.3, "decay": -0.01, "rounding": 0.0, "penalty": -0.04, "curvature": 0.02}
SAID = (("<think>", "format", 0.0), ("so <b>", "reasoning", 0.75), ("1", "answer", 0.25), ("<|im_end|>", "end", 0.0))
"""Text, kind, and share of its sample's effect."""


def write_ledger(place: Path, priors: list[str], target: str, first: float, prompt: str = "p") -> str:
    """Steps that do `first`, −0.2 and 0.3 to the first prior benchmark, 0.1 each more by momentum, and nothing to
    the others."""
    place.mkdir()
    effects = {1: first, 2: -0.2, 3: 0.3}
    others = {f"effect/{name}": 0.0 for name in priors[1:]}
    rows = [
        {"step": step, "row": step, "prompt": prompt, "source": "answers", "correct": step < 3}
        | {"text": f"says <b>{step}", "tokens": 4, "advantage": 1.0}
        | {f"effect/{priors[0]}": effect + 0.1, f"effect/{target}": 18.0, **others}
        for step, effect in effects.items()
    ]
    pd.DataFrame(rows).to_parquet(place / "ledger.parquet")
    measured = sum(effects.values()) + 0.3 - 0.03
    closure = [{"benchmark": priors[0], **ACCOUNTS, "measured": measured}]
    closure += [{"benchmark": name, **NOTHING} for name in priors[1:]]
    closure += [{"benchmark": target, **ACCOUNTS, "measured": 54.0}]
    pd.DataFrame(closure).assign(start=0, step=3).to_parquet(place / "closure.parquet")
    tokens = [
        {"step": step, "row": step, "place": number, "token": text, "kind": kind}
        | {"prior": share * (effect + 0.1) / len(priors), "target": share * 18.0}
        for step, effect in effects.items()
        for number, (text, kind, share) in enumerate(SAID)
    ]
    pd.DataFrame(tokens).to_parquet(place / "tokens.parquet")
    return str(place)
