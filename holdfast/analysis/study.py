"""The analysis of a study, of a sweep, or of several studies: small tables of measures with intervals, and verdicts.

A measure NAME has three columns: NAME, and NAME_low and NAME_high, its 95 % interval. All shares are 0 to 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from holdfast.analysis.answers import Answers, Checkpoint
from holdfast.analysis.contrasts import Setting, verdicts
from holdfast.analysis.estimates import Estimate, Moments, estimate
from holdfast.analysis.influence import InfluenceTables, influence_tables
from holdfast.analysis.length_split import length_split
from holdfast.analysis.matched import Point, at_score, common_score, on_front
from holdfast.analysis.questions import was_evaluated
from holdfast.analysis.table import Tables, load
from holdfast.benchmarks import catalog
from holdfast.config.jobs import Compare
from holdfast.config.prior import Prior
from holdfast.config.study import Study
from holdfast.errors import UserError

SHARES = ("score", "accuracy", "prior", "unparsed", "unparsed_target", "lost_unreadable", "lost_wrong", "gained")
"""Measures whose intervals end at 0 and 1."""


@dataclass(frozen=True)
class Analysis:
    """What was found. `setting` is "" in a study; rows are in the order of the experiment file."""

    job: Compare
    """With the studies alone whose base was evaluated."""
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
        UserError: no arm has been trained and evaluated to its end, or two studies cannot be compared.
    """
    # Of a study that failed early there is nothing to read; the job says which did.
    job = job.model_copy(update={"studies": tuple(filter(was_evaluated, job.studies))})
    if not job.studies:
        raise UserError(f"{job.name}: no base has been evaluated, so there is nothing to compare")
    tables = load(job.studies)
    every = [Answers(study, place, tables) for study, place in zip(job.studies, tables.places, strict=True)]
    settings = _settings(every)
    if not any(setting.arms for setting in settings):
        raise UserError(f"{job.name}: no arm has been trained and evaluated to its end, so there is nothing to compare")
    trajectories = {(s.name, arm): s.trajectory(arm) for s in settings for arm in s.arms}
    benchmarks = _frame(_benchmark(s, arm, name) for s in settings for arm in s.arms for name in s.draws[0].benchmarks)
    ledger = _ledger(every, tables)
    return Analysis(
        job=job,
        tables=tables,
        arms=_frame(_arm(setting, arm) for setting in settings for arm in setting.arms),
        trajectory=_frame(row for s in settings for arm in s.arms for row in _trajectory(s, arm)),
        benchmarks=benchmarks,
        verdicts=verdicts(settings, trajectories),
        frontier=_frontier(settings, trajectories),
        matched=_frame(row for setting in settings for row in _matched(setting, trajectories)),
        base=_frame(row for setting in settings for row in _base(setting)),
        ledger=ledger,
        aliases=pd.DataFrame([row for study in every for row in _aliases(study)], columns=ALIASES),
        length_split=_frame(row for s in settings for arm in s.arms for row in length_split(s, arm)),
        influence=influence_tables(job.studies, every),
    )


def measure(name: str, found: Estimate) -> dict[str, float]:
    """Its three columns."""
    low, high = found.low, found.high
    if name in SHARES:
        low, high = max(low, 0.0), min(high, 1.0)
    if name == "retention":
        low = max(low, 0.0)
    return {name: found.value, f"{name}_low": low, f"{name}_high": high}


def _frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


def _settings(every: Sequence[Answers]) -> list[Setting]:
    found: dict[str, list[Answers]] = {}
    for study in every:
        found.setdefault(study.place.setting, []).append(study)
    return [Setting(tuple(draws)) for draws in found.values()]


def _arm(setting: Setting, arm: str) -> dict[str, Any]:
    draws = [draw for draw in setting.draws if arm in draw.arms]
    ends = [draw.ends(arm) for draw in draws]
    found = {name: estimate(moments) for name, moments in setting.measures(arm).items()}
    trained = setting.draws[0].tables.trainings
    trained = trained[trained["study"].isin([draw.place.study for draw in draws]) & (trained["arm"] == arm)]
    seconds = trained.groupby(["study", "replicate"])["seconds"].sum().to_numpy()
    row: dict[str, Any] = {"setting": setting.name, "arm": arm}
    for name, one in ({"kl": UNKNOWN} | found | {"seconds": estimate(_of_trainings(seconds))}).items():
        row |= measure(name, one)
    return row | {
        "replicates": sum(map(len, ends)),
        "draws": len(draws),
        "questions": found["score"].questions,
        "questions_prior": found["prior"].questions,
        "covers": found["retention"].covers,
        "steps": max(one.step for of_draw in ends for one in of_draw),
        "alarms": int(trained["alarms"].sum()),
        "left_out": sum(one.left_out for one in found.values()),
    }


UNKNOWN = Estimate(np.nan, np.nan, np.nan, 0, 0, "")
ALIASES = [
    *("setting", "alias", "study", "arm", "replicate", "stage", "stage_step", "step", "run_id"),
    *("validation_score", "validation_prior", "score", "retention"),
]


def _of_trainings(values: np.ndarray) -> Moments:
    """What no question is asked for; of one training, without an interval."""
    parts = np.zeros((len(values), 2)) if len(values) > 1 else np.full((1, 2), np.nan)
    return Moments(values.astype(float), parts)


def _benchmark(setting: Setting, arm: str, name: str) -> dict[str, Any]:
    found = setting.pooled(arm, lambda draw: draw.benchmark(draw.ends(arm), name))
    row: dict[str, Any] = {"setting": setting.name, "arm": arm} | _about(setting, name)
    for key, moments in found.items():
        row |= measure(key, estimate(moments))
    return row | {"questions": found["accuracy"].questions}


def _about(setting: Setting, name: str) -> dict[str, Any]:
    draw = setting.draws[0]
    chance = chances(draw.study).get("target" if name == draw.benchmarks[0] else name)
    role = "prior" if name in draw.priors else "target"
    return {"benchmark": name, "role": role, "chance": np.nan if chance is None else chance}


def chances(study: Study) -> dict[str, float | None]:
    """What guessing scores on the target ("target") and on each prior benchmark; None where nobody knows."""
    known = {p.name: catalog.chance(p.name) if isinstance(p, Prior) else None for p in study.prior}
    return {"target": catalog.target_chance(study.target), **known}


def _base(setting: Setting) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in (*setting.draws[0].benchmarks, MEAN):
        about = _about(setting, name)
        if name == MEAN:
            guesses = [row["chance"] for row in rows if row["role"] == "prior"]
            about |= {"role": "prior", "chance": float(np.mean(guesses))}
        found = setting.of_base(name if name != MEAN else None)
        row: dict[str, Any] = {"setting": setting.name} | about
        for key, moments in found.items():
            row |= measure(key, estimate(moments))
        rows.append(row | {"questions": found["accuracy"].questions})
    return rows


MEAN = "mean"
"""Beside the prior benchmarks' names: their mean."""


def _trajectory(setting: Setting, arm: str) -> list[dict[str, Any]]:
    """Every replicate's checkpoints and, with intervals, their means."""
    rows = []
    for draw in [draw for draw in setting.draws if arm in draw.arms]:
        own = {"setting": setting.name, "draw": draw.place.draw, "study": draw.place.study, "arm": arm}
        for replicate in dict.fromkeys(one.replicate for one in draw.ends(arm)):
            for one in [draw.base, *(c for c in draw.checkpoints(arm) if c.replicate == replicate)]:
                at = {"replicate": str(replicate)} | {name: getattr(one, name) for name in STEPS}
                prompts = {name: float(moments.means[0]) for name, moments in draw.prompts([one]).items()}
                rows.append(own | at | draw.levels(one) | {"kl": prompts.get("kl", np.nan)})
    for checkpoint in [setting.draws[0].base, *setting.common(arm)]:
        found = setting.at(arm, checkpoint.step)
        row: dict[str, Any] = {"setting": setting.name, "draw": "", "study": "", "arm": arm, "replicate": "mean"}
        row |= {name: getattr(checkpoint, name) for name in STEPS}
        for name in ALONG:
            row |= measure(name, estimate(found[name]) if name in found else UNKNOWN)
        rows.append(row)
    return rows


ALONG = ("score", "prior", "retention", "forgetting", "kl")
STEPS = ("stage", "stage_step", "step")


def _frontier(settings: Sequence[Setting], trajectories: dict[tuple[str, str], list[Point]]) -> pd.DataFrame:
    rows = []
    for setting in settings:
        points = [(arm, point) for arm in setting.arms for point in trajectories[setting.name, arm]]
        front = on_front([(point.skill, point.kept) for _, point in points])
        for (arm, point), best in zip(points, front, strict=True):
            row: dict[str, Any] = {"setting": setting.name, "arm": arm, "step": point.step}
            row |= measure("score", estimate(point.score)) | measure("retention", estimate(point.retention))
            rows.append(row | {"on_front": best})
    return pd.DataFrame(rows)


def _matched(setting: Setting, trajectories: dict[tuple[str, str], list[Point]]) -> list[dict[str, Any]]:
    own = {arm: trajectories[setting.name, arm] for arm in setting.arms}
    score = common_score(list(own.values())) if own else None
    rows = []
    for arm, points in own.items():
        reached = at_score(points, score) if score is not None else None
        row: dict[str, Any] = {"setting": setting.name, "arm": arm, "matched_score": np.nan if score is None else score}
        row |= {"step": reached.step if reached else np.nan}
        row |= measure("retention", estimate(reached.retention) if reached else UNKNOWN)
        rows.append(row | {"reason": "" if reached else "not every arm rises above the base's score"})
    return rows


def _ledger(every: Sequence[Answers], tables: Tables) -> pd.DataFrame:
    """Prior questions whose answers turned."""
    right, read = (tables.records[name].to_numpy() for name in ("correct", "parsed_ok"))
    prior = (tables.records["role"] == "prior").to_numpy()
    indices, words = [np.empty(0, int)], [np.empty(0, object)]
    for study in every:
        before = study.records(study.base, "test")
        for end in [end for arm in study.arms for end in study.ends(arm)]:
            now = study.records(end, "test")
            turned = (right[before] != right[now]) & prior[now]
            lost = np.where(read[now], "lost_wrong", "lost_unreadable")
            indices.append(now[turned])
            words.append(np.where(right[now], "gained", lost)[turned].astype(object))
    return tables.records.iloc[np.concatenate(indices)].assign(turned=np.concatenate(words))


def _aliases(study: Answers) -> list[dict[str, Any]]:
    """The most skilled checkpoint, and the one with most retention among those at the score that all arms reach.

    Validation questions choose; score and retention are those of the test questions.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    runs = {
        (run.arm, run.replicate, run.stage): run.run_id
        for run in study.tables.trainings.itertuples()
        if run.study == study.place.study
    }
    for arm in study.arms:
        for one in study.checkpoints(arm):
            row = {"setting": study.place.setting, "study": study.place.study} | one._asdict()
            row |= {"run_id": runs.get((one.arm, one.replicate, one.stage), "")} | _validated(study, one)
            found.setdefault(arm, []).append(row)
    known = [row for rows in found.values() for row in rows if np.isfinite(row["validation_score"])]
    if not known:
        return []
    floor = min(max(row["validation_score"] for row in rows) for rows in found.values())
    floor = np.floor(floor * 100 + 1e-9) / 100
    floor = floor if floor > _validated(study, study.base)["validation_score"] else 0.0
    able = [row for row in known if row["validation_score"] >= floor] or known
    chosen = {
        "best-skill": max(known, key=lambda row: (row["validation_score"], row["validation_prior"])),
        "best-retention": max(able, key=lambda row: (row["validation_prior"], row["validation_score"])),
    }
    return [row | {"alias": alias} | _tested(study, row) for alias, row in chosen.items()]


def _validated(study: Answers, one: Checkpoint) -> dict[str, float]:
    """Score and prior mean of validation questions."""
    means = {}
    for name, (_, middle, stop) in study.rows[one].items():
        field = "correct" if name in study.priors else "score"
        values = study.tables.records[field].to_numpy()[middle:stop]
        means[name] = float(np.nanmean(values)) if len(values) else np.nan
    prior = float(np.mean([means[name] for name in study.priors]))
    return {"validation_score": means[study.benchmarks[0]], "validation_prior": prior}


def _tested(study: Answers, row: dict[str, Any]) -> dict[str, float]:
    found = study.levels(Checkpoint(*(row[name] for name in Checkpoint._fields)))
    return {name: found[name] for name in ("score", "retention")}
