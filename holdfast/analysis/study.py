"""The analysis of a study, of a sweep, or of several studies: small tables of measures with intervals, and verdicts.

A measure NAME has three columns: NAME, and NAME_low and NAME_high, its 95 % interval. All shares are 0 to 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd

from holdfast.analysis.answers import VALIDATION, Answers, Checkpoint
from holdfast.analysis.contrasts import Named, Row, Setting, verdicts
from holdfast.analysis.estimates import estimate, of_trainings
from holdfast.analysis.frontier import Fronts, fronts
from holdfast.analysis.influence import InfluenceTables, influence_tables
from holdfast.analysis.ledger import LedgerTables, ledger_tables
from holdfast.analysis.length_split import length_split
from holdfast.analysis.matched import at_score, common_score, on_front, rounded_down
from holdfast.analysis.predictors import PredictorTables, predictor_tables
from holdfast.analysis.questions import of_base
from holdfast.analysis.removal import removal_table
from holdfast.analysis.sequence import continual, courses
from holdfast.analysis.table import BASE, Tables, load
from holdfast.benchmarks import catalog
from holdfast.config.jobs import Compare
from holdfast.config.prior import Prior
from holdfast.errors import UserError

OF_BASE = ("accuracy", "strict", "score", "lenient", "unparsed", "cut")
SHARES = (*OF_BASE, "prior", "unparsed_target", "cut_target")
LOST = ("lost_unreadable", "lost_wrong", "lost_cut", "gained")
LIMITS = dict.fromkeys((*SHARES, *LOST), (0.0, 1.0)) | {"retention": (0.0, np.inf)}
"""Where measures' intervals end."""
MEAN = "mean"
"""Beside the prior benchmarks' names: their mean."""
UNKNOWN = of_trainings(np.full(1, np.nan))
ALIASES = [
    *("setting", "alias", "study", "arm", "replicate", "stage", "stage_step", "step", "run_id"),
    *("validation_score", "validation_prior", "score", "retention"),
]


@dataclass(frozen=True)
class Analysis:
    """What was found. `setting` is "" in a study; rows are in the order of the experiment file."""

    job: Compare
    """With the studies alone whose base was evaluated."""
    tables: Tables
    arms: pd.DataFrame
    """One row a setting and arm, at the end of training. setting, arm; measures score, accuracy (of the target), prior
    (mean accuracy over the prior benchmarks), retention (prior / base's prior), forgetting (base's prior − prior),
    unparsed (share of prior answers that could not be read), unparsed_target, lenient (score when answers are read
    leniently), cut (share of prior answers that the limit cut off), cut_target, kl (nats per token; these four NaN
    where not measured), pass_at_K for every k, tokens (mean length of target completions), seconds (of one training);
    replicates (trainings), draws, questions (target), questions_prior, covers, steps, alarms, left_out (values that are
    not finite)."""
    trajectory: pd.DataFrame
    """One row a setting, arm, replicate and evaluated step, the base as step 0. setting, draw, study, arm, replicate
    ("1", …, or "mean"), stage, stage_step, step; measures score, prior, retention, forgetting, kl. Intervals stand on
    "mean" rows, which have draw "" and the steps that all trainings have."""
    benchmarks: pd.DataFrame
    """One row a setting, arm and benchmark at the end. setting, arm, benchmark, role, chance (NaN where unknown);
    measures accuracy, strict (NaN where form does not count apart), score, lenient (NaN of prior ones), unparsed, cut,
    forgetting, forgetting_strict, lost_unreadable, lost_wrong, lost_cut, gained: forgetting = lost_unreadable +
    lost_wrong − gained, exactly; lost_cut is a part of the first two. cut and lost_cut are NaN in old records;
    questions."""
    verdicts: pd.DataFrame
    """One row a comparison, a − b. setting, factor ("arm", or the factor whose levels a and b are), arm (whose levels
    are compared; "" where arms are), a, b, measure (score | retention), at (end | matched), matched_score (NaN at the
    end); measure difference; p, p_adjusted (Holm, within setting, factor, measure and at), verdict (better | worse |
    not distinguishable | no verdict (one replicate) | not comparable), reason (why not comparable, or ""),
    needed_replicates, needed_questions (NaN where none would do, or nothing is needed), replicates_a, replicates_b,
    covers."""
    frontier: pd.DataFrame
    """Mean trajectories as points: setting, arm, step; measures score, retention; on_front (no other is better)."""
    fronts: Fronts | None
    """Each arm's frontier over all settings; None where settings cannot be put together."""
    matched: pd.DataFrame
    """One row a setting and arm: the highest score that all arms reach (matched_score), step; measure retention; reason
    ("" or why not)."""
    base: pd.DataFrame
    """One row a setting and benchmark, and the prior ones' "mean": setting, benchmark, role, chance; measures accuracy,
    strict, score, lenient, unparsed, cut; questions."""
    aliases: pd.DataFrame
    """Checkpoints chosen on validation questions: setting, alias (best-skill | best-retention), study, arm, replicate,
    stage, stage_step, step, run_id, validation_score, validation_prior, and score and retention on test questions."""
    length_split: pd.DataFrame
    """Whether a model is right more often where it says more: setting, arm; accuracy and tokens of the shorter and the
    longer half of its own target completions (shorter, longer, shorter_tokens, longer_tokens), measure difference
    (longer − shorter)."""
    courses: pd.DataFrame
    """Of studies with several targets, every benchmark along the whole sequence; where `ends`, a stage has just ended,
    and these rows are the matrix A[stage, task]. setting, draw, study, arm, replicate ("1", …, or "mean"), stage,
    stage_step, step, learned (the stage's target; "" for the base, step 0), ends, benchmark, role; measures accuracy
    and score, with intervals on "mean" rows alone."""
    continual: pd.DataFrame
    """Of studies with several targets, one row a setting, arm and measure of continual learning: setting, arm, measure,
    source (whose definition it is), value, low, high, replicates, covers."""
    influence: InfluenceTables | None
    """None where nothing was traced."""
    ledgers: LedgerTables | None = None
    """None where no stage has a ledger."""
    predictors: PredictorTables | None = None
    """None where nothing was measured."""
    removal: pd.DataFrame = field(default_factory=pd.DataFrame)
    """`removal.removal_table`; empty where no arm selects from what an arm with a ledger learned from."""


def analyse(job: Compare) -> Analysis:
    """Everything that the pages, summary.json and the terminal show.

    Raises:
        UserError: no arm has been trained and evaluated to its end, or two studies cannot be compared.
    """
    # Of a study that failed early there is nothing to read; the job says which did.
    job = job.model_copy(update={"studies": tuple(filter(of_base, job.studies))})
    if not job.studies:
        raise UserError(f"{job.name}: no base has been evaluated, so there is nothing to compare")
    tables = load(job.studies)
    every = [Answers(study, place, tables) for study, place in zip(job.studies, tables.places, strict=True)]
    names = dict.fromkeys(study.place.setting for study in every)
    settings = [Setting([study for study in every if study.place.setting == name]) for name in names]
    ended = [(setting, arm) for setting in settings for arm in setting.arms]
    if not ended:
        raise UserError(f"{job.name}: no arm has been trained and evaluated to its end, so there is nothing to compare")
    trajectory = pd.DataFrame(row for setting, arm in ended for row in _trajectory(setting, arm))
    return Analysis(
        job=job,
        tables=tables,
        arms=pd.DataFrame(_arm(setting, arm) for setting, arm in ended),
        trajectory=trajectory,
        benchmarks=pd.DataFrame(row for setting, arm in ended for row in _benchmarks(setting, arm)),
        verdicts=verdicts(settings),
        frontier=_frontier(trajectory),
        fronts=fronts(settings),
        matched=pd.DataFrame(row for setting in settings for row in _matched(setting)),
        base=pd.DataFrame(row for setting in settings for row in _base(setting)),
        aliases=pd.DataFrame([row for study in every for row in _aliases(study)], columns=ALIASES),
        length_split=pd.DataFrame(row for setting, arm in ended for row in length_split(setting, arm)),
        courses=courses(settings),
        continual=continual(settings),
        influence=influence_tables(job.studies, every),
        ledgers=ledger_tables(job.studies, every),
        predictors=predictor_tables(job.studies, every, job.seed),
        removal=removal_table(job.studies, every),
    )


def _measures(found: Named) -> Row:
    """The three columns of each measure."""
    row: Row = {}
    for name, one in ((name, estimate(moments)) for name, moments in found.items()):
        least, most = LIMITS.get(name, (-np.inf, np.inf))
        row |= {name: one.value, f"{name}_low": max(one.low, least), f"{name}_high": min(one.high, most)}
    return row


def _arm(setting: Setting, arm: str) -> Row:
    draws, ends, found = setting.having(arm), setting.ends(arm), setting.measures(arm)
    trained = draws[0].tables.trainings
    trained = trained[trained["study"].isin([draw.place.study for draw in draws]) & (trained["arm"] == arm)]
    seconds = trained.groupby(["study", "replicate"])["seconds"].sum().to_numpy(float)
    measured = (
        dict.fromkeys(("kl", "lenient", "cut", "cut_target"), UNKNOWN) | found | {"seconds": of_trainings(seconds)}
    )
    row = {"setting": setting.name, "arm": arm} | _measures(measured)
    return row | {
        "replicates": len(ends),
        "draws": len(draws),
        "questions": found["score"].questions,
        "questions_prior": found["prior"].questions,
        "covers": found["retention"].covers,
        "steps": max(one.step for one in ends),
        "alarms": int(trained["alarms"].sum()),
        "left_out": sum(moments.left_out for moments in found.values()),
    }


def _benchmarks(setting: Setting, arm: str) -> Iterator[Row]:
    for about in _about(setting):
        found = setting.pooled(partial(Answers.benchmark, arm=arm, names=[about["benchmark"]]), arm)
        row = {"setting": setting.name, "arm": arm} | about | _measures(found)
        yield row | {"questions": found["accuracy"].questions}


def _about(setting: Setting) -> list[Row]:
    """Every benchmark's name and role, and what guessing scores on it; NaN where nobody knows."""
    draw = setting.draws[0]
    chances = {p.name: catalog.chance(p.name) if isinstance(p, Prior) else None for p in draw.study.prior}
    chances |= {name: catalog.target_chance(target) for name, target in draw.study.all_targets.items()}
    rows = [{"benchmark": name, "role": draw.role(name), "chance": chances.get(name)} for name in draw.benchmarks]
    return [row | {"chance": np.nan if row["chance"] is None else row["chance"]} for row in rows]


def _base(setting: Setting) -> Iterator[Row]:
    every = _about(setting)
    own = [row for row in every if row["role"] == "prior"]
    priors = [row["benchmark"] for row in own]
    mean = {"benchmark": MEAN, "role": "prior", "chance": float(np.mean([row["chance"] for row in own]))}
    for about in [*every, mean]:
        names = priors if about is mean else [about["benchmark"]]
        found = setting.pooled(partial(Answers.benchmark, arm=BASE, names=names))
        known = _measures({name: found[name] for name in OF_BASE})
        yield {"setting": setting.name} | about | known | {"questions": found["accuracy"].questions}


def _trajectory(setting: Setting, arm: str) -> Iterator[Row]:
    """Every replicate's checkpoints and, with intervals, their means."""
    for draw in setting.having(arm):
        for path in draw.paths(arm):
            for one in [draw.base, *path]:
                kl = draw.prompts([one]).get("kl", UNKNOWN).means
                at = {"setting": setting.name, "draw": draw.place.draw, "study": draw.place.study, "arm": arm}
                at |= {"replicate": str(path[0].replicate)} | _steps(one)
                yield at | draw.levels(one) | {"kl": float(kl[0])}
    for one, measured in setting.course(arm):
        found = {"kl": UNKNOWN} | measured
        at = {"setting": setting.name, "draw": "", "study": "", "arm": arm, "replicate": "mean"} | _steps(one)
        yield at | _measures({name: found[name] for name in ("score", "prior", "retention", "forgetting", "kl")})


def _steps(one: Checkpoint) -> Row:
    return {name: getattr(one, name) for name in ("stage", "stage_step", "step")}


def _frontier(trajectory: pd.DataFrame) -> pd.DataFrame:
    means = trajectory[trajectory["replicate"] == "mean"]
    points = [zip(rows["score"], rows["retention"], strict=True) for _, rows in means.groupby("setting", sort=False)]
    columns = [f"{name}{end}" for name in ("score", "retention") for end in ("", "_low", "_high")]
    front = [best for own in points for best in on_front(list(own))]
    return means[["setting", "arm", "step", *columns]].assign(on_front=front).reset_index(drop=True)


def _matched(setting: Setting) -> Iterator[Row]:
    own = {arm: setting.trajectory(arm) for arm in setting.arms}
    score = common_score(list(own.values())) if own else None
    for arm, points in own.items():
        reached = at_score(points, score) if score is not None else None
        row = {"setting": setting.name, "arm": arm, "matched_score": np.nan if score is None else score}
        row |= {"step": reached.step if reached else np.nan}
        row |= _measures({"retention": reached.retention if reached else UNKNOWN})
        yield row | {"reason": "" if reached else "not every arm rises above the base's score"}


def _aliases(study: Answers) -> Iterator[Row]:
    """The most skilled checkpoint, and the one with most retention among those at the score that all arms reach.

    Validation questions choose; score and retention are those of the test questions.
    """
    run_ids = study.tables.trainings.set_index(["study", "arm", "replicate", "stage"])["run_id"].to_dict()
    checkpoints = [one for arm in study.study.arms for one in study.checkpoints(arm)]
    rows = []
    for one in checkpoints:
        found = study.levels(one, VALIDATION)
        row = {"setting": study.place.setting, "study": study.place.study} | one._asdict()
        row |= {"run_id": run_ids.get((study.place.study, one.arm, one.replicate, one.stage), "")}
        rows.append(row | {"validation_score": found["score"], "validation_prior": found["prior"]})
    known = pd.DataFrame(rows, columns=ALIASES)
    known = known[np.isfinite(known["validation_score"].astype(float))]
    reached = rounded_down(known.groupby("arm")["validation_score"].max().min())
    floor = reached if reached > study.levels(study.base, VALIDATION)["score"] else 0.0
    able = known[known["validation_score"] >= floor]
    orders = {"best-skill": ["validation_score", "validation_prior"]}
    orders["best-retention"] = orders["best-skill"][::-1]
    for alias, order in orders.items() if len(able) else ():
        best = able.sort_values(order, ascending=False, kind="stable").index[0]
        tested = study.levels(checkpoints[best])
        yield rows[best] | {"alias": alias, "score": tested["score"], "retention": tested["retention"]}
