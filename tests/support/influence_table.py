"""Rows of influence by hand."""

import numpy as np

from holdfast.analysis.influence_rows import Rows


def rows(*given, benchmarks=("jigsaw", "color")):
    """Each given as (step, prompt, tokens, dots)."""
    steps, prompts, tokens, dots = zip(*given, strict=True)
    values = np.array(dots, dtype=float)
    names = tuple(f"{prompt}/{place}" for place, prompt in enumerate(prompts))
    ones = np.ones(len(steps))
    return Rows(
        *(benchmarks, np.array(steps), names, prompts, np.array(tokens, dtype=float)),
        *(ones, values, values, np.full_like(values, np.nan), values / 100),
        *(ones,) * 6,
        np.empty((*values.shape, 0)),
    )
