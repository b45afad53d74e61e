"""A made-up analysis of made-up studies, to draw pages of: real shards, graders and files; numbers by hand."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from holdfast.analysis.influence import PREDICTIONS, InfluenceTables
from holdfast.analysis.settings import places
from holdfast.analysis.study import Analysis
from holdfast.analysis.table import Tables
from holdfast.benchmarks import catalog
from holdfast.benchmarks.question import Draw
from holdfast.benchmarks.targets import jigsaw
from holdfast.config.jobs import Compare
from holdfast.config.refs import DataRef, FileRef
from holdfast.config.results import Evaluated, FinishedStudy, Result, RunRecord
from holdfast.config.study import Study
from holdfast.data.shards import Question, prior_shard, write_questions
from holdfast.data.world import world_scene
from holdfast.evaluation.records import Record, write_records
from holdfast.influence import tables
from holdfast.journal import Journal

HOSTILE = "<script>alert('owned')</script><img src=x onerror=alert(1)>"
ENDS = {"rft": (0.62, 0.93), "self": (0.66, 0.85), "answers": (0.68, 0.3)}
"""Score and retention of the arms at the end."""
STEPS = (0, 10, 20, 40, 80)


def made_up_study(**changes: object) -> Study:
    """Three arms of the bundled kind."""
    trainer = {"max_steps": STEPS[-1], "learning_rate": 1e-4}
    arms = {name: [{"method": "sft", "source": name, "trainer": trainer}] for name in ("self", "answers")}
    settings = {"name": "made-up", "arms": {"rft": [{"method": "grpo", "trainer": trainer}]} | arms, "replicates": 3}
    return Study.model_validate(settings | {"target": {"test": 8}, "prior": ["color", "digits"]} | changes)


def finished(root: Path, study: Study, levels: dict[str, str] | None = None) -> FinishedStudy:
    """The study's files: shards, the records of the base and of every arm's end, a journal a training."""
    (root / "data").mkdir(parents=True)
    shards = {"target-test": _target(study, "test", 8)}
    shards |= {prior_shard(p.name)[:-8]: list(catalog.prior_questions(p.name, 10, 0)) for p in study.prior}
    for name, questions in shards.items():
        write_questions(root / "data" / f"{name}.parquet", questions)
    evaluated = _answers(root, "base", 0, shards)
    runs = []
    for arm in study.arms:
        for replicate in range(1, study.replicates + 1):
            out = root / f"{arm}-{replicate}"
            out.mkdir()
            _journal(out)
            where = {"arm": arm, "replicate": replicate, "path": str(out), "digest": out.name}
            runs.append(RunRecord(kind="train", seconds=8.0, **where))
            evaluated += _answers(out, arm, replicate, shards)
    return FinishedStudy(
        levels=levels or {},
        study=study,
        data=DataRef(path=root / "data", digest="ab" * 32),
        runs=tuple(runs),
        evaluated=tuple(evaluated),
    )


def _target(study: Study, split: str, count: int) -> list[Question]:
    target = study.target
    if target.benchmark == "jigsaw":
        images = [world_scene(0, "jigsaw", i, study.images.size).image for i in range(count)]
        return [jigsaw.puzzle(image, f"world/{split}/{i}", target, 0) for i, image in enumerate(images)]
    asked = [catalog.TARGETS[target.benchmark].ask(target, Draw(0, split, i)) for i in range(count)]
    return [question.with_completions(f"drawn/{split}/{i}", target) for i, question in enumerate(asked)]


def _journal(out: Path) -> None:
    journal = Journal(out)
    for step in STEPS[1:]:
        journal.log(step, {"train/reward": step / 100, "train/completions/mean_length": 14 + step / 40})
    (out / "result.json").write_text(Result(notes={"skipped": [f"{HOSTILE}.jpg"]}).model_dump_json())


def _answers(out: Path, arm: str, replicate: int, shards: dict[str, list[Question]]) -> list[Evaluated]:
    """The base is right; an arm is right, wrong and hostile in turn."""
    found = []
    for name, questions in shards.items():
        file = out / "records" / f"{name}.parquet"
        records = []
        for place, question in enumerate(questions):
            kind = 0 if arm == "base" else place % 3
            said = (f"<answer> {question.answer} </answer>", "<answer> none </answer>", f"{HOSTILE} <answer>")[kind]
            verdict = catalog.grade(question.grader, said, question.answer)
            role = "target" if name == "target-test" else "prior"
            records.append(
                Record(
                    *(question.benchmark, role, "test", question.id, question.image_id, question.prompt, said),
                    *(verdict.parsed, question.answer, verdict.correct, verdict.score, -1.0, 5, question.grader),
                )
            )
        write_records(file, records)
        place = {"arm": None if arm == "base" else arm, "replicate": replicate, "step": 0 if arm == "base" else 80}
        found.append(Evaluated(kind="records", benchmark=name, file=FileRef(path=file, digest="0"), **place))
    return found


def traced(root: Path, study: FinishedStudy) -> FinishedStudy:
    """With an influence run of the first arm, whose samples pull both ways."""
    asked = _target(study.study, "train", 3)
    write_questions(study.data.path / "target-train.parquet", asked)
    (root / "influence").mkdir()
    rows, texts = [], []
    for step in (0, 80):
        for question, dot in zip(asked, (-2.0, 0.0, 3.0), strict=True):
            own = {"sample": question.id, "prompt": question.id, "step": step}
            for block in ("embed", "layers.0"):
                dots = {f"dot/{name}/{half}": dot for name in ("color", "jigsaw") for half in "ab"}
                row = own | {"source": "grpo", "block": block, "tokens": 5, "loglik": -1.0, "weight": 1.0, "norm2": 1.0}
                rows.append(row | dots)
            texts.append(own | {"text": f"said {dot} {HOSTILE}"})
    tables.write_rows(root / "influence" / "influence.parquet", rows)
    tables.write_sources(root / "influence" / "sources.parquet", texts)
    run = RunRecord(kind="influence", arm="rft", replicate=1, path=str(root / "influence"), digest="i", seconds=3.0)
    return study.model_copy(update={"runs": (*study.runs, run)})


def compared(*studies: FinishedStudy, **changes: object) -> Compare:
    """The job that compares them."""
    given = {"name": "made-up", "command": "holdfast study made-up.yaml", "data_version": "d41d8c.dir", "code": "c0"}
    return Compare(studies=studies, **{**given, **changes})


def analysed(job: Compare, influence: bool = False) -> Analysis:
    """Numbers by hand for the job's studies."""
    spots = places(job.studies)
    every = [(study, spot.study, spot.setting) for study, spot in zip(job.studies, spots, strict=True)]
    frame, nothing = pd.DataFrame, pd.DataFrame()
    found = [row for study, name, setting in every for row in _trainings(study, name, setting)]
    flips = [
        {"study": name, "setting": s, "questions": 28.0, "answers": 0.036, "verdicts": 0.0} for _, name, s in every
    ]
    alarm = {"step": 20, "alarm": "no-spread", "sentence": f"90% of the groups {HOSTILE}", "stage": 0}
    alarms = [{"study": name, "setting": setting, "arm": "rft", "replicate": 2} | alarm for _, name, setting in every]
    read = Tables(
        *(nothing, nothing, nothing, nothing),
        trainings=frame(found),
        alarms=frame(alarms),
        flips=frame(flips),
        places=spots,
    )
    return Analysis(
        job=job,
        tables=read,
        arms=frame([row for study, _, setting in every for row in _arms(study, setting)]),
        trajectory=frame([row for study, name, setting in every for row in _trajectory(study, name, setting)]),
        benchmarks=frame([row for study, _, setting in every for row in _benchmarks(study, setting)]),
        verdicts=frame([row for study, _, setting in every for row in _verdicts(study, setting)] + _levels(job)),
        frontier=nothing,
        fronts=None,
        matched=nothing,
        base=frame([row for study, _, setting in every for row in _base(study, setting)]),
        aliases=nothing,
        courses=nothing,
        continual=nothing,
        length_split=nothing,
        influence=_influence(job.studies[0], every[0][2]) if influence else None,
    )


def _measured(**values: float) -> dict[str, float]:
    """Each with an interval."""
    return {f"{n}{end}": v + by for n, v in values.items() for end, by in (("", 0.0), ("_low", -0.05), ("_high", 0.05))}


def _trainings(study: FinishedStudy, name: str, setting: str) -> list[dict]:
    return [
        {"study": name, "setting": setting, "draw": "", "arm": run.arm, "replicate": run.replicate, "stage": 0}
        | {"path": run.path, "seconds": 8.0, "steps": 80, "method": study.study.arms[run.arm][0].method}
        for run in study.runs
        if run.kind == "train"
    ]


def _arms(study: FinishedStudy, setting: str) -> list[dict]:
    repeats = study.study.replicates
    covers = "questions and replicates" if repeats > 1 else "questions only"
    return [
        {"setting": setting, "arm": arm, "replicates": repeats, "draws": 1, "questions": 8, "questions_prior": 20}
        | {"covers": covers, "steps": 80, "alarms": 0, "left_out": 0}
        | _measured(score=ENDS[arm][0], accuracy=0.5, prior=0.9 * ENDS[arm][1], retention=ENDS[arm][1])
        | _measured(forgetting=0.9 * (1 - ENDS[arm][1]), unparsed=0.1, kl=0.2, pass_at_4=0.83, seconds=8.0)
        for arm in study.study.arms
    ]


def _trajectory(study: FinishedStudy, name: str, setting: str) -> list[dict]:
    found = []
    for arm in study.study.arms:
        for replicate in (*map(str, range(1, study.study.replicates + 1)), "mean"):
            for step in STEPS:
                share = (step / STEPS[-1]) ** 0.5
                kept = 1 + share * (ENDS[arm][1] - 1)
                place = {
                    "setting": setting,
                    "draw": "",
                    "study": name,
                    "arm": arm,
                    "replicate": replicate,
                    "step": step,
                }
                measures = {"score": 0.25 + share * (ENDS[arm][0] - 0.25), "prior": 0.9 * kept, "retention": kept}
                measures |= {"forgetting": 0.9 * (1 - kept), "kl": 1.1 - kept if step else 0.0}
                found.append(place | (_measured(**measures) if replicate == "mean" else measures))
    return found


def _benchmarks(study: FinishedStudy, setting: str) -> list[dict]:
    return [
        {"setting": setting, "arm": arm, "benchmark": prior.name, "role": "prior", "chance": 0.25, "questions": 10}
        | _measured(lost_wrong=0.2, lost_unreadable=0.1, gained=0.05, forgetting=0.25)
        for arm in study.study.arms
        for prior in study.study.prior
    ]


def _base(study: FinishedStudy, setting: str) -> list[dict]:
    target = study.study.target.benchmark
    return [
        {"setting": setting, "benchmark": name, "role": "target" if name == target else "prior", "chance": 0.25}
        | _measured(accuracy=0.9, score=0.9, unparsed=0.0)
        for name in (target, *(prior.name for prior in study.study.prior), "mean")
    ]


def _verdicts(study: FinishedStudy, setting: str) -> list[dict]:
    found = []
    for measure, at in (("retention", "matched"), ("retention", "end"), ("score", "end")):
        for a, b in combinations(study.study.arms, 2):
            moved = ENDS[a][measure == "retention"] - ENDS[b][measure == "retention"]
            word = "better" if moved > 0.15 else "worse" if moved < -0.15 else "not distinguishable"
            word = word if study.study.replicates > 1 else "no verdict (one replicate)"
            found.append(verdict(a, b, word, moved, setting=setting, measure=measure, at=at))
    return found


def verdict(a: str, b: str, word: str, moved: float = 0.1, **changes: object) -> dict:
    """One row of `Analysis.verdicts`."""
    place = {"setting": "", "factor": "arm", "arm": "", "measure": "retention", "at": "end"}
    needed = 7.0 if word == "not distinguishable" else None
    return (
        place
        | {"a": a, "b": b, "verdict": word, "p_adjusted": 0.04, "reason": "", "needed_replicates": needed}
        | {"needed_questions": None}
        | _measured(difference=moved)
        | changes
    )


def _levels(job: Compare) -> list[dict]:
    """Of a factor `size`, where the studies vary one."""
    levels = [study.levels["size"] for study in job.studies if "size" in study.levels]
    return [verdict(a, b, "worse", -0.2, factor="size", arm="rft") for a, b in combinations(levels, 2)]


def _influence(study: FinishedStudy, setting: str) -> InfluenceTables:
    rng, frame = np.random.default_rng(0), pd.DataFrame
    changes, measures = [], []
    for arm in study.study.arms:
        for name, role in (("jigsaw", "target"), ("color", "prior"), ("digits", "prior")):
            place = {"setting": setting, "arm": arm, "stage": 0, "source": "grpo", "benchmark": name, "role": role}
            values = dict.fromkeys(("measured", *PREDICTIONS), float(rng.normal()))
            changes.append(place | {"study": study.study.name, "replicate": 1, "forgetting": 0.1} | values)
            measures += [
                place | {"measure": measure, "step": step} | _measured(value=float(rng.normal()))
                for measure in ("dot", "cosine", "norm_per_token")
                for step in STEPS
            ]
    agreement = [
        {"prediction": prediction, "against": "measured", "points": 6, "trainings": 3, "contradicted": strength <= 0}
        | _measured(pearson=strength, sign=0.5 + strength / 2)
        for prediction, strength in zip(PREDICTIONS, (0.79, 0.6, -0.3, -0.5), strict=True)
    ]
    notes = [{"study": "", "arm": "rft", "replicate": 1, "stage": 0, "note": "rewards only, without", "text": HOSTILE}]
    return InfluenceTables(frame(changes), frame(agreement), frame(measures), frame(notes))
