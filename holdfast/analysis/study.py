"""The analysis of a study, of a sweep, or of several studies: small tables of measures with intervals, and verdicts.

A measure NAME has three columns: NAME, and NAME_low and NAME_high, its 95 % interval. All shares are 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from holdfast.analysis.influence import InfluenceTables
from holdfast.analysis.table import Tables
from holdfast.config.jobs import Compare


@dataclass(frozen=True)
class Analysis:
    """What was found. `setting` is "" in a study; rows are in the order of the experiment file."""

    job: Compare
    tables: Tables
    arms: pd.DataFrame
    """One row a setting and arm, at the end of training. setting, arm; measures score, accuracy (of the target), prior
    (mean accuracy over the prior benchmarks), retention (prior / base's prior), forgetting (base's prior − prior),
    unparsed (share of prior answers that could not be read), unparsed_target, kl (nats per token; NaN where it was not
    measured), pass_at_K for every k, tokens (mean length of target completions), seconds (of one training); replicates
    (trainings), draws, questions (target), questions_prior, covers, steps, alarms, left_out (values that are not
    finite)."""
    trajectory: pd.DataFrame
    """One row a setting, arm, replicate and evaluated step, the base as step 0. setting, draw, study, arm, replicate
    ("1", …, or "mean"), stage, stage_step, step; measures score, prior, retention, forgetting, kl. Intervals stand on
    "mean" rows, which have draw "" and the steps that all trainings have."""
    benchmarks: pd.DataFrame
    """One row a setting, arm and benchmark at the end. setting, arm, benchmark, role, chance (NaN where unknown);
    measures accuracy, score, unparsed, forgetting, lost_unreadable, lost_wrong, gained: forgetting = lost_unreadable +
    lost_wrong − gained, exactly; questions."""
    verdicts: pd.DataFrame
    """One row a comparison, a − b. setting, factor ("arm", or the factor whose levels a and b are), arm (whose levels
    are compared; "" where arms are), a, b, measure (score | retention), at (end | matched), matched_score (NaN at the
    end); measure difference; p, p_adjusted (Holm, within setting, factor, measure and at), verdict (better | worse |
    not distinguishable | no verdict (one replicate) | not comparable), reason (why not comparable, or ""),
    needed_replicates, needed_questions (NaN where none would do, or nothing is needed), replicates_a, replicates_b,
    covers."""
    frontier: pd.DataFrame
    """Mean trajectories as points: setting, arm, step; measures score, retention; on_front (no other is better)."""
    matched: pd.DataFrame
    """One row a setting and arm: the highest score that all arms reach (matched_score), step; measure retention; reason
    ("" or why not)."""
    base: pd.DataFrame
    """One row a setting and benchmark, and the prior ones' "mean": setting, benchmark, role, chance; measures accuracy,
    score, unparsed; questions."""
    ledger: pd.DataFrame
    """One row a prior question and training whose answer turned at the end: the columns of `Tables.records`, with their
    index, and turned (lost_unreadable | lost_wrong | gained)."""
    aliases: pd.DataFrame
    """Checkpoints chosen on validation questions: setting, alias (best-skill | best-retention), study, arm, replicate,
    stage, stage_step, step, run_id, validation_score, validation_prior, and score and retention on test questions."""
    length_split: pd.DataFrame
    """Whether a model is right more often where it says more: setting, arm; accuracy and tokens of the shorter and the
    longer half of its own target completions (shorter, longer, shorter_tokens, longer_tokens), measure difference
    (longer − shorter)."""
    influence: InfluenceTables | None
    """None where nothing was traced."""


def analyse(job: Compare) -> Analysis:
    """Everything that the pages, summary.json and the terminal show.

    Raises:
        UserError: no study has finished evaluating, or two cannot be compared.
    """
    raise NotImplementedError
