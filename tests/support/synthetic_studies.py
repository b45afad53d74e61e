"""Finished studies of known truth on disk: records, journals, drift and influence, as evaluations and trainings leave
them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.benchmarks import catalog
from holdfast.benchmarks.targets import jigsaw
from holdfast.config.jobs import Compare
from holdfast.config.refs import DataRef, FileRef, content_key
from holdfast.config.results import Evaluated, FinishedStudy, RunRecord
from holdfast.config.study import Study
from holdfast.data.shards import Question, write_questions
from holdfast.data.world import world_scene
from holdfast.evaluation.records import Record, write_records
from holdfast.journal import Journal

HOSTILE = "<script>alert('owned')</script><img src=x onerror=alert(1)>"
PRIOR = 0.9
"""Chance that the base is right on a prior question."""
SKILL = 0.25
"""Its chance on a target question."""


class Truth(NamedTuple):
    """What an arm is expected to do at the end. Replicates differ from it by a normal deviation, within 0 and 1."""

    score: float = 0.6
    retention: float = 0.8
    sd: float = 0.05
    """Between replicates, of score and of retention."""
    unreadable: float = 0.3
    """The share of lost answers that cannot be read."""
    kl: float = 0.3


class Shape(NamedTuple):
    """How much of a study is made."""

    replicates: int = 3
    target: int = 60
    """Test questions."""
    prior: int = 40
    """Of each prior benchmark."""
    validation: int = 16
    steps: tuple[int, ...] = (4, 8, 16, 32)
    common: float = 0.7
    """Share of questions whose fate all arms and replicates share: those that are easy to forget go first."""
    pictures: bool = False
    """Real questions with pictures, and shards of them."""
    traced: bool = False
    predicted: bool = False


WHOLE = Shape()


def study_of(truths: Mapping[str, Truth], **changes: Any) -> Study:
    """A study of these arms; `rft` is reinforced, one named like a source learns from it, others from answers."""
    kinds = ("answers", "teacher", "self")
    sft = {"method": "sft", "trainer": {"max_steps": 32, "learning_rate": 1e-4}}
    arms = {arm: [sft | {"source": arm if arm in kinds else "answers"}] for arm in truths}
    if "rft" in arms:
        arms["rft"] = [{"method": "grpo", "trainer": {"max_steps": 32, "num_generations": 4}}]
    prior = [{"benchmark": name} for name in ("color", "count", "presence")]
    return Study.model_validate({"name": "made", "arms": arms, "prior": prior, "replicates": 3} | changes)


def finished_study(
    root: Path,
    truths: Mapping[str, Truth],
    shape: Shape = WHOLE,
    levels: Mapping[str, str] | None = None,
    **changes: Any,
) -> FinishedStudy:
    """Write the files of a study below `root`; `changes` are fields of the study (name, seed, prior, …)."""
    study = study_of(truths, replicates=shape.replicates, **changes)
    maker = _Maker(root, study, shape)
    for arm, truth in truths.items():
        for replicate in range(1, shape.replicates + 1):
            maker.train(arm, replicate, truth)
    return FinishedStudy(
        levels=dict(levels or {}),
        study=study,
        data=DataRef(path=root / "data", digest="ab" * 32),
        runs=tuple(maker.runs),
        evaluated=tuple(maker.evaluated),
    )


def compare_job(
    *studies: FinishedStudy, name: str = "made", factors: Mapping[str, Sequence[str]] | None = None
) -> Compare:
    """The job that reports on them."""
    return Compare(
        name=name,
        factors={factor: tuple(levels) for factor, levels in (factors or {}).items()},
        studies=studies,
        command=f"holdfast study experiments/{name}.yaml",
        data_version="d41d8cd98f00b204e9800998ecf8427e.dir",
        code="c0" * 32,
    )


def with_form(study: FinishedStudy, benchmark: str) -> FinishedStudy:
    """Form counts apart in a benchmark: the base keeps it in three of four answers, arms in every second one."""
    for one in study.evaluated:
        if one.kind == "records" and one.benchmark == benchmark:
            table = pq.read_table(one.file.path)
            right = table["correct"].to_pylist()
            formed = [correct and place % (4 if one.arm is None else 2) > 0 for place, correct in enumerate(right)]
            column = table.column_names.index("strict")
            pq.write_table(table.set_column(column, "strict", pa.array(formed)), one.file.path)
    return study


def with_cuts(study: FinishedStudy, *arms: str | None) -> FinishedStudy:
    """Some arms' records, or the base's (None), know that what cannot be read was cut off, and that half of every
    target answer's missing score was form."""
    for one in study.evaluated:
        if one.kind == "records" and one.arm in arms:
            table = pq.read_table(one.file.path)
            lenient = [
                (1 + score) / 2 if role == "target" else None
                for role, score in zip(table["role"].to_pylist(), table["score"].to_pylist(), strict=True)
            ]
            for name, column in (("cut", table["parsed"].is_null()), ("lenient", pa.array(lenient, pa.float64()))):
                table = table.set_column(table.column_names.index(name), name, column)
            pq.write_table(table, one.file.path)
    return study


class _Maker:
    """Writes one study. Questions and the base depend on the study's seed; replicates on seed, arm and number."""

    def __init__(self, root: Path, study: Study, shape: Shape) -> None:
        self.root, self.study, self.shape = root, study, shape
        self.runs: list[RunRecord] = []
        self.evaluated: list[Evaluated] = []
        self.target = study.target.benchmark
        self.asked = {
            (name, split): _questions(study, name, split, self._count(name, split), shape.pictures)
            for name in (self.target, *(prior.name for prior in study.prior))
            for split in ("test", "validation")
        }
        rng = np.random.default_rng([study.seed, 1])
        self.fate = {key: rng.random(len(asked)) for key, asked in self.asked.items()}
        self.base = {
            key: rng.random(len(asked)) < (SKILL if key[0] == self.target else PRIOR)
            for key, asked in self.asked.items()
        }
        self._write_data()
        self._write_base()

    def _count(self, name: str, split: str) -> int:
        if split == "validation":
            return self.shape.validation
        return self.shape.target if name == self.target else self.shape.prior

    def _write_data(self) -> None:
        (self.root / "data").mkdir(parents=True)
        if self.shape.pictures:
            for (name, split), asked in self.asked.items():
                kind = "target" if name == self.target else "prior"
                plain = {
                    "target": f"target-{split}",
                    "prior": f"prior-{name}" if split == "test" else f"prior_validation-{name}",
                }
                write_questions(self.root / "data" / f"{plain[kind]}.parquet", asked)
            write_questions(
                self.root / "data" / "target-train.parquet", _questions(self.study, self.target, "train", 16, True)
            )

    def _write_base(self) -> None:
        out = self.root / "base"
        self._records(out, None, (0, 0, 0), self.base)
        self._drift(out, None, (0, 0, 0), 0.0)
        questions = float(sum(map(len, self.asked.values())))
        flips = {"questions": questions, "answers": 0.01, "verdicts": 0.005}
        (out / "result.json").write_text(json.dumps({"notes": {"flips": flips}, "metrics": {}, "seconds": 3.0}))

    def train(self, arm: str, replicate: int, truth: Truth) -> None:
        """A training with its journal, evaluations and, where asked for, its influence."""
        rng = np.random.default_rng([self.study.seed, replicate, *arm.encode()])
        score, kept = (float(np.clip(rng.normal(mean, truth.sd), 0, 1)) for mean in (truth.score, truth.retention))
        own = {key: rng.random(len(asked)) for key, asked in self.asked.items()}
        out = self.root / f"{arm}-{replicate}"
        out.mkdir()
        journal, last = Journal(out), self.shape.steps[-1]
        for step in self.shape.steps:
            share = (step / last) ** 0.5
            right = self._answers(own, SKILL + share * (score - SKILL), 1 - share * (1 - kept))
            journal.log(step, {"train/loss": 1 / step})
            self._records(
                self.root / f"{arm}-{replicate}-evaluation", arm, (replicate, 0, step), right, truth.unreadable
            )
            self._drift(self.root / f"{arm}-{replicate}-evaluation", arm, (replicate, 0, step), truth.kl * share)
        if truth.unreadable > 0.5 and replicate == 1:
            journal.alarm(last // 2, "unparsed", f"{arm}: most answers cannot be read")
        self._finish("train", arm, replicate, out, 60.0 + rng.normal())
        if self.shape.traced:
            self._trace(arm, replicate, 1 - kept)
        if self.shape.predicted:
            self._predict(arm, replicate, 1 - kept)

    def _answers(self, own: Mapping[Any, np.ndarray], skill: float, kept: float) -> dict[Any, np.ndarray]:
        """Which answers are right: of what the base knew, the share `kept`; of the target, `skill`."""
        found = {}
        for key, base in self.base.items():
            fate = self.fate[key]
            ease = np.where(fate < self.shape.common, fate / self.shape.common, own[key])
            found[key] = ease < skill if key[0] == self.target else base & (ease < kept)
        return found

    def _records(
        self,
        out: Path,
        arm: str | None,
        place: tuple[int, int, int],
        right: Mapping[Any, np.ndarray],
        unreadable: float = 0.3,
    ) -> None:
        replicate, stage, step = place
        for name in dict.fromkeys(name for name, _ in self.asked):
            rows = [
                record
                for split in ("test", "validation")
                for record in self._benchmark(name, split, right[name, split], unreadable)
            ]
            path = out / "records" / f"step-{step:06d}" / f"{name}.parquet"
            write_records(path, rows)
            self._evaluated("records", arm, (replicate, stage, step), name, path)

    def _benchmark(self, name: str, split: Any, right: np.ndarray, unreadable: float) -> list[Record]:
        rows = []
        for index, (question, fine) in enumerate(zip(self.asked[name, split], right.tolist(), strict=True)):
            lost = not fine and self.fate[name, split][index] * 7919 % 1 < unreadable
            said = question.answer if fine else "another"
            partial = 0.25 if name == self.target and not lost else 0.0
            rows.append(
                Record(
                    benchmark=name,
                    role="target" if name == self.target else "prior",
                    split=split,
                    id=question.id,
                    image_id=question.image_id,
                    prompt=question.prompt,
                    completion=f"<think> {HOSTILE}" if lost else f"<think> i look </think> <answer> {said} </answer>",
                    parsed=None if lost else said,
                    answer=question.answer,
                    correct=fine,
                    score=1.0 if fine else partial,
                    logprob=-0.1 if fine else -1.5,
                    tokens=9 if lost else 7 + index % 5,
                    grader=question.grader,
                )
            )
        return rows

    def _drift(self, out: Path, arm: str | None, place: tuple[int, int, int], kl: float) -> None:
        path = out / "drift" / f"step-{place[2]:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        ids = [question.id for question in self.asked[self.target, "test"][:16]]
        spread = np.random.default_rng([place[0], place[2]]).gamma(4, 0.25, len(ids))
        pq.write_table(pa.table({"id": ids, "kl": kl * spread}), path)
        self._evaluated("drift", arm, place, self.target, path)

    def _trace(self, arm: str, replicate: int, lost: float) -> None:
        out = self.root / f"{arm}-{replicate}-influence"
        source = "grpo" if arm == "rft" else self.study.arms[arm][0].source.kind
        names = list(dict.fromkeys(name for name, _ in self.asked))
        write_influence(out, source, [0, *self.shape.steps], dict.fromkeys(names[1:], -lost) | {names[0]: 0.5})
        self._finish("influence", arm, replicate, out, 3.0)

    def _predict(self, arm: str, replicate: int, lost: float) -> None:
        """The forward KL goes with what is lost, and the entropy with nothing; an arm's data has one perplexity."""
        out = self.root / f"{arm}-{replicate}-predictors"
        out.mkdir()
        rng, last = np.random.default_rng([replicate, *arm.encode()]), self.shape.steps[-1]
        rows = [
            {"step": step, "kl_forward_target": lost * (step / last) ** 0.5, "entropy_target": rng.random()}
            | {"perplexity": float(len(arm))}
            for step in self.shape.steps
        ]
        pq.write_table(pa.Table.from_pylist(rows), out / "predictors.parquet")
        self._finish("predictors", arm, replicate, out, 3.0)

    def _evaluated(self, kind: Any, arm: str | None, place: tuple[int, int, int], benchmark: str, path: Path) -> None:
        replicate, stage, step = place
        ref = FileRef(path=path, digest=content_key(str(path)))
        self.evaluated.append(
            Evaluated(kind=kind, arm=arm, replicate=replicate, stage=stage, step=step, benchmark=benchmark, file=ref)
        )

    def _finish(self, kind: Any, arm: str, replicate: int, out: Path, seconds: float) -> None:
        digest = content_key([kind, arm, replicate, str(out)])
        self.runs.append(
            RunRecord(
                kind=kind,
                arm=arm,
                replicate=replicate,
                path=str(out),
                digest=digest,
                seconds=seconds,
                run_id=digest[:8],
            )
        )


def _questions(study: Study, name: str, split: str, count: int, pictures: bool) -> list[Question]:
    if not pictures:
        return [
            Question(
                f"{name}-{split}-{i:05d}",
                f"{study.seed}/{name}/{split}/{i}",
                (),
                f"{name}?",
                str(i % 7),
                "",
                "exact",
                name,
            )
            for i in range(count)
        ]
    if name == "jigsaw":
        scenes = [
            (f"world/{split}/{i:06d}", world_scene(study.seed, split, i, study.images.size)) for i in range(count)
        ]
        return [jigsaw.puzzle(scene.image, image, study.target, study.seed) for image, scene in scenes]
    return list(catalog.prior_questions(name, count, study.seed, "validation" if split == "validation" else "test"))


def write_influence(out: Path, source: str, steps: Sequence[int], changes: Mapping[str, float]) -> None:
    """An influence run's files. Of each benchmark's log-likelihood, `changes` has the change over the whole training;
    the trapezoid predicts it but for a twentieth of it, sums over samples predict its opposite."""
    out.mkdir(parents=True)
    journal, rng = Journal(out), np.random.default_rng([len(steps), *source.encode()])
    rows, texts, path = [], [], []
    for step in steps:
        own = _samples(source, step, changes, rng)
        rows += own
        texts += [
            {"sample": row["sample"], "prompt": row["prompt"], "step": step, "text": f"<think> {HOSTILE} </think>"}
            for row in own
        ]
        tokens = sum(row["tokens"] for row in own)
        logged = {f"{name}/norm": float(np.mean([row["norm2"] ** 0.5 for row in own])) for name in changes}
        for name in changes:
            dots = [row["weight"] * (row[f"dot/{name}/a"] + row[f"dot/{name}/b"]) / 2 for row in own]
            logged |= {f"{name}/dot": sum(dots) / tokens, f"{name}/benchmark_norm": 2.0, f"{name}/cosine": 0.1}
        journal.log(step, {f"influence/{source}/{name}": value for name, value in logged.items()})
    for start, step in pairwise(steps):
        for name, change in changes.items():
            part = change * (step - start) / (steps[-1] - steps[0])
            for number in range(6):
                far = 1 + 0.3 * rng.normal()
                measured = part * (1 + 0.1 * rng.normal())
                path.append(
                    {"benchmark": name, "id": str(number), "start": start, "step": step, "measured": measured}
                    | {"first_order": measured * far, "trapezoid": measured * 1.05}
                )
    sums = {f"{name}/{kind}": -change * 3 for name, change in changes.items() for kind in ("tracin", "adam_tracin")}
    journal.log(steps[-1], {f"influence/{source}/{name}": value for name, value in sums.items()})
    for file, found in (("influence", rows), ("sources", texts), ("path", path)):
        pq.write_table(pa.Table.from_pylist(found), out / f"{file}.parquet")
    notes = {"source": source} | ({"rewards only, without": "the KL penalty (beta 0.1)"} if source == "grpo" else {})
    (out / "result.json").write_text(json.dumps({"notes": notes, "metrics": {}, "seconds": 3.0}))


def _samples(source: str, step: int, changes: Mapping[str, float], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Eight prompts' samples; one block of layers."""
    lengths = rng.integers(8, 30, 8)
    weights = rng.normal(size=8) if source == "grpo" else np.ones(8)
    return [
        {"sample": f"train-{i}/0", "prompt": f"train-{i}", "source": source, "step": step, "block": "layers.0"}
        | {"tokens": int(n), "loglik": -float(n), "weight": float(w), "norm2": float(n) ** 2}
        | {
            f"dot/{name}/{half}": float(n * (change + 0.2 * rng.normal()))
            for name, change in changes.items()
            for half in "ab"
        }
        for i, (n, w) in enumerate(zip(lengths, weights, strict=True))
    ]
