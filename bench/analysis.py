"""How long does the analysis of many runs take, and how much memory? Of made-up trainings.

`python -m bench.analysis` writes 200 trainings (10 arms of 20 replicates) of 10,000 questions each, one checkpoint a
training beside the base, then loads and summarises them and prints seconds and peak memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.analysis.study import analyse
from holdfast.analysis.summary import summary
from holdfast.config.jobs import Compare
from holdfast.config.refs import DataRef, FileRef
from holdfast.config.results import Evaluated, FinishedStudy, RunRecord
from holdfast.config.study import Study

ARMS = 10
PRIORS = ("color", "shape", "count", "presence")


def write_study(root: Path, runs: int, questions: int) -> FinishedStudy:
    """One study of `runs` trainings, each asked `questions` questions of five benchmarks."""
    replicates = runs // ARMS
    arms = {f"arm{number}": [{"method": "sft", "source": "answers"}] for number in range(ARMS)}
    study = Study.model_validate(
        {"name": "bench", "arms": arms, "prior": [{"benchmark": name} for name in PRIORS], "replicates": replicates}
    )
    rng, names = np.random.default_rng(0), (study.target.benchmark, *PRIORS)
    each = questions // len(names)
    asked = {name: _asked(name, each) for name in names}
    trained = [(arm, replicate) for arm in arms for replicate in range(1, replicates + 1)]
    evaluated, records = [], []
    for arm, replicate in [(None, 0), *trained]:
        step = 0 if arm is None else 100
        out = root / f"{arm}-{replicate}"
        for name in names:
            path = out / "records" / f"step-{step:06d}" / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(_answered(asked[name], rng.random(each) < 0.8), path)
            file = FileRef(path=path, digest=str(path))
            evaluated.append(
                Evaluated(kind="records", arm=arm, replicate=replicate, step=step, benchmark=name, file=file)
            )
        if arm is not None:
            records.append(
                RunRecord(kind="train", arm=arm, replicate=replicate, path=str(out), digest=str(out), seconds=60.0)
            )
    data = DataRef(path=root / "data", digest="")
    return FinishedStudy(study=study, data=data, runs=tuple(records), evaluated=tuple(evaluated))


def _asked(name: str, count: int) -> pa.Table:
    ids = [f"{name}-{number:06d}" for number in range(count)]
    columns = {"benchmark": [name] * count, "role": ["prior"] * count, "split": ["test"] * count, "id": ids}
    said = ["Which colour is the shape in the upper left corner of the picture?"] * count
    return pa.table(columns | {"image_id": [f"world/{one}" for one in ids], "prompt": said, "answer": ["red"] * count})


def _answered(asked: pa.Table, right: np.ndarray) -> pa.Table:
    count = len(right)
    said = [f"<think> i look at it </think> <answer> {'red' if one else 'blue'} </answer>" for one in right.tolist()]
    columns = {
        "completion": said,
        "parsed": ["red" if one else "blue" for one in right.tolist()],
        "correct": right,
        "score": right.astype(float),
        "logprob": np.full(count, -0.5),
        "tokens": np.full(count, 12) + np.arange(count) % 3,
        "grader": ["color"] * count,
    }
    for name, values in columns.items():
        asked = asked.append_column(name, pa.array(values))
    return asked


def peak_memory() -> float:
    """Of this process until now, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--questions", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = write_study(Path(folder), given.runs, given.questions)
        before, started = peak_memory(), time.perf_counter()
        job = Compare(name="bench", studies=(study,), command="", data_version="")
        found = summary(analyse(job))
        seconds = time.perf_counter() - started
    rows = (given.runs + 1) * given.questions
    print(f"{given.runs} runs × {given.questions} questions ({rows} rows, {len(found['verdicts'])} verdicts)")
    print(f"{seconds:.1f} s; peak memory {peak_memory():.0f} MB ({before:.0f} MB before)")


if __name__ == "__main__":
    main()
