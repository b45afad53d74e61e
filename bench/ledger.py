"""What a ledger costs beside the training that it accounts for, and what it costs a training to keep its steps.

Run: python -m bench.ledger [--arms answers teacher rft] [--steps 64] [--rounds 3] [--threads 1]. Trainings are those of
the default study's arms (experiments/bundled.yaml), or as long as `steps` says, on its own data and benchmarks.
`training` is the plain training without any measurement, as a ledger takes it again that finds no steps; `keeping` what
a training takes longer that keeps them; `nodes` the benchmarks' gradients, `steps` the way back over the steps, and
`tokens` the same with its tokens. Ratios are to the training, for a ledger that finds its steps: of the way back alone,
of it with the benchmarks' gradients, and with tokens, too. Prints a Markdown table in seconds (medians of rounds, and
the range of the ratios). Exits with 1 where the way back over a supervised training takes more than 1.3 of it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from bench.rft import EXPERIMENTS, stage_of
from flows.commands.experiment import load_study
from holdfast.benchmarks.dataset import make_data
from holdfast.config.jobs import STEPS, Account, Job, MakeData, Train
from holdfast.config.measurement import Evaluation, LedgerSettings
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.config.results import Result
from holdfast.data.shards import target_shard
from holdfast.models.tiny.shipped import shipped_base

LIMIT = 1.3
HEADS = ("arm", "training", "keeping", "nodes", "steps", "tokens", "way back", "ledger", "ledger with tokens")


class Round(NamedTuple):
    """Seconds."""

    training: float
    keeping: float
    nodes: float
    steps: float
    tokens: float

    @property
    def ratios(self) -> tuple[float, float, float]:
        """The last three columns."""
        parts = (self.steps, self.nodes + self.steps, self.nodes + self.tokens)
        way_back, ledger, with_tokens = (part / self.training for part in parts)
        return way_back, ledger, with_tokens


def run(job: Job, out: Path) -> Result:
    """In a process of its own, as a study runs it."""
    out.mkdir()
    (out / "job.json").write_text(job.model_dump_json())
    subprocess.run([sys.executable, "-m", "holdfast", out / "job.json", out], check=True, capture_output=True)
    return Result.model_validate_json((out / "result.json").read_text())


def made(place: Path) -> DataRef:
    """The default study's data."""
    study = load_study(EXPERIMENTS / "bundled.yaml")
    place.mkdir()
    make_data(MakeData(images=study.images, target=study.target, prior=study.prior), place)
    return DataRef(path=place, digest="")


def training(arm: str, data: DataRef, steps: int | None, threads: int) -> Train:
    """Of an arm, kept half-way and at its end."""
    study, stage = load_study(EXPERIMENTS / "bundled.yaml"), stage_of("bundled.yaml", arm)
    return Train(
        stage=stage.model_copy(update={"trainer": stage.trainer | ({"max_steps": steps} if steps else {})}),
        start=shipped_base(),
        base=shipped_base(),
        data=data,
        questions=FileRef(path=data.path / target_shard("train"), digest=""),
        limit=study.evaluation.max_new_tokens,
        keep=0.5,
        evaluation=Evaluation(validation=1),
        threads=threads,
    )


def measured(job: Train, place: Path) -> Round:
    """One training and its ledgers."""
    study = load_study(EXPERIMENTS / "bundled.yaml")
    place.mkdir()
    plain = run(job, place / "plain")
    kept = run(job.model_copy(update={"keep_steps": True}), place / "kept")
    (place / "kept" / STEPS).rename(place / STEPS)
    about: dict[str, Any] = {"seed": job.seed, "threads": job.threads, "train": job, "data": job.data}
    about["influence"] = study.influence.model_copy(update={"ledger": None}) if study.influence else None
    about["kept"] = tuple(
        ModelRef(path=str(place / "kept" / one.path), digest=one.digest, step=one.step) for one in kept.checkpoints
    )
    found = run(Account(**about, settings=LedgerSettings(tokens=False), recorded=STEPS), place / "found")
    again = run(Account(**about), place / "again")
    steps, tokens = (one.notes["seconds, steps,"] for one in (found, again))
    longer = kept.seconds - plain.seconds
    return Round(again.notes["seconds, training again,"], longer, found.notes["seconds, benchmarks,"], steps, tokens)


def line(arm: str, rounds: list[Round]) -> str:
    """A row of the table."""
    seconds = [f"{statistics.median(values):.1f}" for values in zip(*rounds, strict=True)]
    ratios = [sorted(of) for of in zip(*(one.ratios for one in rounds), strict=True)]
    spread = [f"{statistics.median(of):.2f} ({of[0]:.2f}–{of[-1]:.2f})" for of in ratios]
    return f"| {' | '.join([arm, *seconds, *spread])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arms", nargs="+", default=["answers", "teacher", "rft"])
    parser.add_argument("--steps", type=int, help="by default as many as the arm takes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
    over = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        data = made(place / "data")
        for arm in arguments.arms:
            job = training(arm, data, arguments.steps, arguments.threads)
            rounds = [measured(job, place / f"{arm}-{number}") for number in range(arguments.rounds)]
            print(line(arm, rounds), flush=True)
            if job.stage.method == "sft" and statistics.median(one.ratios[0] for one in rounds) > LIMIT:
                over.append(arm)
    if over:
        sys.exit(f"beyond {LIMIT} of the training: {', '.join(over)}")


if __name__ == "__main__":
    main()
