"""Writes what finished runs leave behind, with made-up but consistent answers: real shards, graders and journals."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.benchmarks import catalog
from holdfast.benchmarks.question import Draw
from holdfast.benchmarks.targets import jigsaw
from holdfast.config.jobs import Compare, Contrast, FinishedMember
from holdfast.config.methods import GRPO
from holdfast.config.refs import DataRef, content_key
from holdfast.config.results import Checkpoint, Result, RunRecord
from holdfast.config.study import Study
from holdfast.config.sweep import Member, Sweep
from holdfast.data.shards import Question, write_questions
from holdfast.data.world import world_scene
from holdfast.influence import measures, tables
from holdfast.journal import Journal

HOSTILE = "<script>alert('owned')</script><img src=x onerror=alert(1)>"


class Model(NamedTuple):
    """A made-up model: how likely it solves a puzzle, answers a prior question, and says nothing readable."""

    skill: float
    prior: float
    unreadable: float = 0.0
    drift: float | None = 0.0
    words: float = 0.0
    """Mean number of words that it thinks more than the others."""

    def towards(self, other: Model, share: float) -> Model:
        pairs = zip(self, other, strict=True)
        return Model(*(None if a is None or b is None else a + share * (b - a) for a, b in pairs))


BASE = Model(0.04, 0.95)
FINAL_MODELS = {
    "rft": Model(0.62, 0.93, 0.0, 0.05),
    "self": Model(0.66, 0.85, 0.02, 0.16),
    "rollouts": Model(0.58, 0.88, 0.01, 0.12),
    "teacher": Model(0.2, 0.42, 0.05, 0.9),
    "answers": Model(0.68, 0.3, 0.5, 1.4),
}


def write_data(root: Path, study: Study, prior_questions: int = 30) -> dict[str, list[Question]]:
    """target-test.parquet and prior-NAME.parquet; returns their questions."""
    root.mkdir(parents=True)
    shards = {"target-test": target_questions(study, "test", "jigsaw", study.target.test)}
    for prior in study.prior:
        shards[f"prior-{prior.name}"] = list(catalog.prior_questions(prior.name, prior_questions, study.seed))
    for name, questions in shards.items():
        write_questions(root / f"{name}.parquet", questions)
    return shards


def target_questions(study: Study, split: str, stream: str, count: int) -> list[Question]:
    """Of a jigsaw, puzzles of scenes from a random stream; of any other target, what it draws for the split."""
    if study.target.benchmark != "jigsaw":
        module = catalog.TARGETS[study.target.benchmark]
        drawn = [module.ask(study.target, Draw(study.seed, split, i)) for i in range(count)]
        return [question.with_completions(f"drawn/{split}/{i:06d}", study.target) for i, question in enumerate(drawn)]
    scenes = [(f"world/{split}/{i:06d}", world_scene(study.seed, stream, i, study.images.size)) for i in range(count)]
    return [jigsaw.puzzle(scene.image, name, study.target, study.seed) for name, scene in scenes]


def graded_rows(shards: dict[str, list[Question]], model: Model, seed: int) -> list[dict]:
    """Answers that the real graders have judged. A question that is easy for one model is easy for all."""
    easy, luck = np.random.default_rng(seed), np.random.default_rng([seed, int(model.skill * 1e6)])
    rows = []
    for name, questions in shards.items():
        role = "target" if name == "target-test" else "prior"
        ability = model.skill if role == "target" else model.prior
        for question in questions:
            right = easy.random() < ability
            completion = _completion(question, right, luck, model)
            grade = catalog.grade(question.grader, completion, question.answer)
            rows.append(
                {"benchmark": question.benchmark, "role": role, "id": question.id, "image_id": question.image_id}
                | {"prompt": question.prompt, "completion": completion, "parsed": grade.parsed}
                | {"answer": question.answer, "correct": grade.correct, "score": grade.score}
                | {"logprob": -1.0, "tokens": len(completion.split())}
            )
    return rows


def _completion(question: Question, right: bool, luck: np.random.Generator, model: Model) -> str:
    more = " and look" * luck.poisson(model.words) if model.words else ""
    if right:
        return f"<think> i look at the pieces{more} </think> <answer> {question.answer} </answer>"
    if luck.random() < model.unreadable:
        return f"<think> {HOSTILE} <answer> 3 1 2"
    words = question.answer.split()
    if len(words) > 1:
        words = [words[i] for i in luck.permutation(len(words))]
    else:
        words = [str(luck.choice([w for w in ("red", "blue", "yes", "no", "3", "7", "left") if w != words[0]]))]
    return f"<think> i look{more} </think> <answer> {' '.join(words)} </answer>"


def metrics_of(rows: list[dict], base: list[dict], drift: float | None) -> dict[str, float]:
    """As an evaluation logs them."""

    def mean(benchmark: str, field: str, answers: list[dict] = rows) -> float:
        return float(np.mean([row[field] for row in answers if row["benchmark"] == benchmark]))

    def unread(benchmark: str) -> float:
        return float(np.mean([row["parsed"] is None for row in rows if row["benchmark"] == benchmark]))

    names = sorted({row["benchmark"] for row in rows if row["role"] == "prior"})
    target = next(row["benchmark"] for row in rows if row["role"] == "target")
    metrics = {f"target/{target}/{k}": mean(target, f) for k, f in (("score", "score"), ("accuracy", "correct"))}
    metrics[f"target/{target}/unparsed"] = unread(target)
    for name in names:
        metrics[f"prior/{name}/accuracy"] = mean(name, "correct")
        metrics[f"prior/{name}/unparsed"] = unread(name)
        metrics[f"prior/{name}/logprob"] = -1.0
    metrics["prior/mean/accuracy"] = float(np.mean([metrics[f"prior/{name}/accuracy"] for name in names]))
    before = float(np.mean([mean(name, "correct", base) for name in names]))
    metrics["forgetting/mean"] = before - metrics["prior/mean/accuracy"]
    metrics["retention"] = metrics["prior/mean/accuracy"] / before
    metrics |= {f"validation/{k}": value for k, value in metrics.items() if k.startswith(("target/", "prior/"))}
    return metrics if drift is None else metrics | {"kl/target": drift}


def write_evaluation(out: Path, step: int, rows: list[dict]) -> None:
    (out / "evaluations").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), out / "evaluations" / f"step-{step:06d}.parquet")


def finish(out: Path, seconds: float, record: dict, notes: dict | None = None) -> RunRecord:
    steps = sorted(int(path.stem.removeprefix("step-")) for path in out.glob("evaluations/step-*.parquet"))
    checkpoints = tuple(Checkpoint(step=step, path=f"checkpoints/step-{step:06d}", digest="0") for step in steps)
    result = Result(checkpoints=checkpoints, seconds=seconds, notes=notes or {})
    (out / "result.json").write_text(result.model_dump_json())
    digest = content_key([record, steps])
    return RunRecord(path=str(out), digest=digest, seconds=seconds, run_id=digest[:8], **record)


def finished_study(root: Path, study: Study, final_models: dict[str, Model], evaluations: int = 4) -> Compare:
    """The job that compares the arms of `study`, each of which ends as its model in `final_models`."""
    shards = write_data(root / "data", study)
    base_model = next(iter(final_models.values()))._replace(skill=BASE.skill, prior=BASE.prior, unreadable=0.0)
    base_model = base_model._replace(drift=None if base_model.drift is None else 0.0)
    base = graded_rows(shards, base_model, study.seed)
    out = root / "base"
    write_evaluation(out, 0, base)
    Journal(out).log(0, metrics_of(base, base, base_model.drift))
    runs = [finish(out, 12.0, {"kind": "evaluate"}, {"peak": "1.2 GB"})]
    for arm, stages in study.arms.items():
        done = 0
        for stage, config in enumerate(stages):
            total = int(config.trainer["max_steps"])
            out = root / f"{arm}-{stage}"
            out.mkdir()
            journal = Journal(out)
            if stage == 0:
                journal.log(0, metrics_of(base, base, base_model.drift))
            for number in range(1, evaluations + 1):
                step = round(total * number / evaluations)
                journal.log(step, {"train/loss": 1 / step})
                share = (stage + number / evaluations) / len(stages)
                model = base_model.towards(final_models[arm], share**0.7)
                rows = graded_rows(shards, model, study.seed)
                write_evaluation(out, step, rows)
                journal.log(step, metrics_of(rows, base, model.drift))
            done += total
            runs.append(finish(out, 0.4 * total, {"kind": "train", "arm": arm, "stage": stage}))
    return Compare(
        study=study,
        data=DataRef(path=root / "data", digest="ab" * 32),
        runs=tuple(runs),
        command="holdfast study experiments/bundled.yaml",
        data_version="d41d8cd98f00b204e9800998ecf8427e.dir",
        code="c0" * 32,
        seed=study.seed,
    )


def five_arms(**changes: object) -> Study:
    """A study like the bundled one."""
    grpo = {"method": "grpo", "trainer": {"max_steps": 800, "learning_rate": 1e-4, "num_generations": 16, "beta": 0.1}}
    sft = {"max_steps": 640, "learning_rate": "1e-4", "per_device_train_batch_size": 32}
    arms = {"rft": [grpo]} | {
        kind: [{"method": "sft", "source": kind, "trainer": sft}] for kind in ("self", "teacher", "answers")
    }
    arms["rollouts"] = [{"method": "sft", "source": {"kind": "rollouts", "arm": "rft"}, "trainer": sft}]
    settings = {"name": "bundled", "arms": arms, "target": {"test": 60}} | changes
    return Study.model_validate(settings)


def finished_sweep(root: Path, sweep: Sweep, final_models: Callable[[Member], dict[str, Model]]) -> Contrast:
    """The job that contrasts a sweep's members, whose arms end as `final_models` says; only the size of what they
    learned from is real, `target.train` questions."""
    members = []
    for member in sweep.members:
        job = finished_study(root / member.study.name, member.study, final_models(member), evaluations=2)
        blank = Question("train", "none", (), "?", "a", "a", "exact", member.study.target.benchmark)
        write_questions(job.data.path / "target-train.parquet", [blank] * member.study.target.train)
        for run in job.runs:
            if run.arm and isinstance(member.study.arms[run.arm][run.stage], GRPO):
                _log_rollouts(Path(run.path), final_models(member)[run.arm])
        members.append(FinishedMember(levels=member.levels, study=member.study, data=job.data, runs=job.runs))
    return Contrast(
        name=sweep.name,
        factors=sweep.factors,
        members=tuple(members),
        command=f"holdfast study experiments/{sweep.name}.yaml",
        data_version="d41d8cd98f00b204e9800998ecf8427e.dir",
        code="c0" * 32,
    )


def _log_rollouts(out: Path, model: Model) -> None:
    """What TRL reports while an arm is reinforced."""
    journal, rng = Journal(out), np.random.default_rng(int(1000 * model.skill))
    for step in range(10, 801, 10):
        length = 14 + model.words * step / 800 + rng.normal()
        logged = {"train/completions/mean_length": length, "train/reward": model.skill * step / 800 + rng.normal() / 20}
        journal.log(step, logged)


SCALE = np.linspace(0.2, 5.0, 24)
"""√v̂ + ε of the made-up parameters, from the first checkpoint after the beginning on."""
PROBES = 2
LEANS = {"rft": 0.1, "self": 0.02, "rollouts": 0.05, "teacher": -0.5, "answers": -0.9}
"""How far along prior gradients the made-up samples of each arm point."""


def traced_study(root: Path, study: Study, final_models: dict[str, Model], prompts: int = 8) -> Compare:
    """A finished study with an influence run for every stage, whose gradients are short made-up vectors."""
    job = finished_study(root, study, final_models)
    asked = target_questions(study, "train", "train", prompts)
    write_questions(root / "data" / "target-train.parquet", asked)
    runs = [
        write_influence(root / f"{run.arm}-{run.stage}-influence", run, study, asked)
        for run in job.runs
        if run.kind == "train"
    ]
    return job.model_copy(update={"runs": (*job.runs, *runs)})


def write_influence(out: Path, trained: RunRecord, study: Study, asked: list[Question]) -> RunRecord:
    """The files of an influence run, by the writers and formulas of the real one."""
    out.mkdir()
    journal, config = Journal(out), study.arms[trained.arm][trained.stage]
    source = "grpo" if config.method == "grpo" else config.source.kind
    rng = np.random.default_rng([study.seed, *trained.arm.encode()])
    total = int(config.trainer["max_steps"])
    steps = [round(total * share) for share in (0, 0.25, 0.5, 0.75, 1)]
    names = [study.target.benchmark, *(prior.name for prior in study.prior)]
    rows: list[dict] = []
    texts: list[dict] = []
    sums = {f"{name}/{kind}": 0.0 for name in names for kind in ("tracin", "adam_tracin")}
    for step in steps:
        values = {name: rng.normal(size=(2, 24)) * 0.2 + 0.1 for name in names}
        found = _checkpoint((rows, texts), (source, step, LEANS.get(trained.arm, 0.0)), asked, values, rng)
        if step < total:
            found["stride"] = stride = 1e-3 * (min(s for s in steps if s > step) - step)
            for name, (kind, dot) in product(names, (("tracin", "dot"), ("adam_tracin", "adam_dot"))):
                sums[f"{name}/{kind}"] += stride * found.get(f"{name}/{dot}", 0.0)
        journal.log(step, {f"influence/{source}/{name}": value for name, value in found.items()})
    trajectory = _trajectory(names, steps, rng)
    last = sums | _changes(names, trajectory)
    journal.log(steps[-1], {f"influence/{source}/{name}": value for name, value in last.items()})
    tables.write_rows(out / "influence.parquet", rows)
    tables.write_sources(out / "sources.parquet", texts)
    tables.write_trajectory(out / "path.parquet", trajectory)
    notes = {"source": source} | ({"rewards only, without": "the KL penalty (beta 0.1)"} if source == "grpo" else {})
    return finish(out, 3.0, {"kind": "influence", "arm": trained.arm, "stage": trained.stage}, notes)


def _checkpoint(
    kept: tuple[list[dict], list[dict]],
    at: tuple[str, int, float],
    asked: list[Question],
    values: dict[str, np.ndarray],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Rows and texts of one checkpoint, in two blocks of twelve parameters; returns its measures. The target is first.

    `at` is the source, the step, and how far the samples point along prior gradients.
    """
    source, step, lean = at
    rollouts = 4 if source == "grpo" else 1
    prompts = [question.id for question in asked for _ in range(rollouts)]
    count = len(prompts)
    length = {"grpo": 21, "self": 21, "rollouts": 21, "teacher": 45, "answers": 9}[source]
    tokens = rng.integers(length - 1, length + 2, count).astype(float)
    weights = rng.normal(size=count) if source == "grpo" else np.ones(count)
    skill, *others = (value.mean(0) for value in values.values())
    prior = np.mean(others, axis=0)
    gradients = rng.normal(size=(count, 24)) + weights[:, None] * (lean * 8 * prior + skill * 6)
    gradients *= abs(lean) ** 0.5 + 0.2
    loglik = -tokens * (1 + np.arange(count) % 3 / 10)
    # Squared normal numbers, as dots with random logits are.
    squares = {
        b: np.random.default_rng([step, count, *b.encode()]).chisquare(1, (PROBES, count)) * 9 * length for b in values
    }
    for place, prompt in enumerate(prompts):
        name = f"{prompt}/{place % rollouts}"
        said = f"<think> {source} {place} {HOSTILE if place == 0 else ''} </think>"
        text = f"{said} at {step}" if rollouts > 1 else said
        own = {f"kernel2/{b}/{probe}": s[probe, place] for b, s in squares.items() for probe in range(PROBES)}
        own |= {"certainty": 1.5, "error": 1.1, "loglik_start": 2 * loglik[place]}
        kept[1].append({"sample": name, "prompt": prompt, "step": step, "text": text} | own)
        for block, part in (("embed", slice(0, 12)), ("layers.0", slice(12, 24))):
            own_part = gradients[place, part]
            halves = {f"dot/{b}/{half}": v[k] for b, v in values.items() for k, half in enumerate("ab")}
            dots = {name: float(own_part @ half[part]) for name, half in halves.items()}
            dots["dot/sum"] = float(own_part @ (weights @ gradients)[part])
            if step:
                dots |= {f"dot/adam/{b}": float(own_part @ (v.mean(0) / SCALE)[part]) for b, v in values.items()}
            own = {"sample": name, "prompt": prompt, "source": source, "step": step, "block": block}
            own |= {"tokens": int(tokens[place]), "loglik": loglik[place], "weight": float(weights[place])}
            kept[0].append(own | {"norm2": float((gradients[place, part] ** 2).sum())} | dots)
    total = weights @ gradients
    source_samples = measures.Source(tokens, weights, (gradients**2).sum(1), float(total @ total), np.full(count, 1.5))
    found = _measures(source_samples, gradients, values)
    found["perplexity"] = measures.perplexity(loglik, tokens)
    found["perplexity_start"] = measures.perplexity(2 * loglik, tokens)
    found |= {f"{b}/{k}": v for b, s in squares.items() for k, v in measures.kernel(s, tokens, 4.0).items()}
    return found | (_adam(source_samples, gradients, values) if step else {})


def _adam(source_samples: measures.Source, gradients: np.ndarray, values: dict[str, np.ndarray]) -> dict[str, float]:
    dots = {
        name: float(source_samples.weights @ gradients @ (value.mean(0) / SCALE) / source_samples.tokens.sum())
        for name, value in values.items()
    }
    target, *others = dots
    rates = {f"{name}/adam_exchange": measures.exchange(dots[name], dots[target]) for name in others}
    return {f"{name}/adam_dot": dot for name, dot in dots.items()} | rates


def _measures(
    source_samples: measures.Source, gradients: np.ndarray, values: dict[str, np.ndarray]
) -> dict[str, float]:
    found = measures.of_source(source_samples)
    alone = {"norm": found.pop("norm"), "norm_per_token": found.pop("norm_per_token")}
    for name, value in values.items():
        mean = value.mean(0)
        benchmark = measures.Benchmark(gradients @ mean, float(mean @ mean), float(value[0] @ value[1]), 30.0)
        on = measures.on_benchmark(source_samples, benchmark) | alone
        found |= {f"{name}/{measure}": number for measure, number in on.items()}
    target, *others = values
    return found | {f"{b}/exchange": measures.exchange(found[f"{b}/dot"], found[f"{target}/dot"]) for b in others}


def _trajectory(names: list[str], steps: list[int], rng: np.random.Generator) -> list[dict]:
    rows = []
    for start, step in pairwise(steps):
        for name in names:
            for number in range(6):
                measured = float(rng.normal() * 0.2 - 0.1)
                near, far = measured + rng.normal() * 0.02, measured + rng.normal() * 0.2
                row = {"benchmark": name, "id": str(number), "start": start, "step": step, "measured": measured}
                rows.append(row | {"trapezoid": float(near), "first_order": float(far)})
    return rows


def _changes(names: list[str], trajectory: list[dict]) -> dict[str, float]:
    found = {}
    for kind in ("measured", "first_order", "trapezoid"):
        for name in names:
            found[f"{name}/change_{kind}"] = sum(row[kind] for row in trajectory if row["benchmark"] == name) / 6
    prior = [row for row in trajectory if row["benchmark"] != names[0]]
    measured = np.array([row["measured"] for row in prior])
    for kind in ("first_order", "trapezoid"):
        agreed = measures.agreement(np.array([row[kind] for row in prior]), measured)
        found |= {f"{name}_{kind}": value for name, value in agreed.items()}
    return found
