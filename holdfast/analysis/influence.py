"""Influence: does it predict what was forgotten, and how large are a source's gradients and which way do they point."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

PREDICTIONS = ("trapezoid", "first_order", "tracin", "adam_tracin")
"""`trapezoid` and `first_order` go along the path that the weights took; the others are sums over samples."""


@dataclass(frozen=True)
class InfluenceTables:
    """What was traced. `source` is where a stage's completions come from (`grpo` for its own rollouts)."""

    changes: pd.DataFrame
    """One row a traced training and benchmark: study, setting, draw, arm, replicate, stage, source, benchmark, role,
    questions; change of its log-likelihood (nats per token, over the whole training), measured, and predicted by each
    of `PREDICTIONS` (NaN where unknown); forgetting (accuracy lost at the end of the arm)."""
    agreement: pd.DataFrame
    """Predictions against what was measured, over all prior benchmarks, arms and replicates: prediction, against
    (measured | forgetting, of which the predicted change should be the negative); measures pearson and sign (share of
    changes with the predicted sign); points, trainings; contradicted (pearson is not positive)."""
    measures: pd.DataFrame
    """Along the training: setting, arm, stage, source, benchmark, role, step (of the stage), measure (dot, adam_dot,
    cosine, norm, …); measure value, which covers prompts and replicates; replicates, prompts."""
    logged: pd.DataFrame
    """All that the traces logged, by training: study, setting, draw, arm, replicate, stage, source, benchmark ("" where
    it is of the source alone), measure, step, value. docs/metrics.md has the names."""
    notes: pd.DataFrame
    """What the linear form leaves out: study, arm, replicate, stage, note, text."""


def influence_tables(studies, tables, every):
    return None
