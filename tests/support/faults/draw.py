"""Faults, drawn: a seed and a number decide the kind, how it strikes, in which stage and at which moment."""

from __future__ import annotations

import random
from typing import NamedTuple

SAMPLE = "own sample"
"""Its samples become a part of the data, for which data.dvc is written anew."""
STAGES = ("data", "evaluate", "answers", "answers evaluate", SAMPLE)
"""The stages of the small study by the names that it prints."""
LATER = (*STAGES[1:], "answers influence", "compare")
"""Those of the command as well; data is made before anything else there, too."""
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
RANKS = ("first rank", "second rank")
"""Of the layer in which two processes share every stage."""


class Kind(NamedTuple):
    """One thing that can happen."""

    name: str
    layer: str
    ways: tuple[str, ...]
    stages: tuple[str, ...]
    weight: float = 1.0


KINDS = (
    Kind("signal", "stages", tuple(f"{s} to the {t}" for s in SIGNALS for t in ("child", "flow")), STAGES, 3),
    Kind("signal at a call of MLflow's", "stages", SIGNALS, STAGES, 3),
    Kind("disk full", "stages", ("0 KiB left", "20 KiB left", "300 KiB left"), STAGES, 2),
    Kind("file size limit", "stages", ("16 KiB", "256 KiB"), STAGES),
    Kind("read-only directory", "stages", ("mlruns", "data", ".dvc"), STAGES),
    Kind("truncated", "stages", ("shard", "DVC's cache"), ("data",)),
    Kind("bit flipped", "stages", ("shard", "DVC's cache"), ("data",)),
    Kind("truncated", "stages", ("finished artifact", "finished record"), STAGES[1:]),
    Kind("bit flipped", "stages", ("finished artifact", "finished record"), STAGES[1:]),
    Kind("truncated", "stages", ("left checkpoint", "left journal", "anything left"), ("answers",)),
    Kind("bit flipped", "stages", ("left checkpoint", "left journal", "anything left"), ("answers",), 2),
    Kind("SQLite journal", "stages", ("hot", "hot, truncated", "hot, bit flipped"), STAGES[1:]),
    Kind("clock jump", "stages", ("-1 day", "-10 min", "+10 min", "+1 day"), STAGES),
    Kind("two at once", "stages", ("both go on", "one is killed"), STAGES),
    Kind("DVC lock held", "stages", ("2 s",), ("data", SAMPLE), 0.5),
    Kind("signal", "ranks", tuple(f"{s} to the {t}" for s in SIGNALS for t in (*RANKS, "flow")), STAGES[1:]),
    Kind(
        "signal",
        "study",
        tuple(
            f"{s} to the {t}" for s in SIGNALS for t in ("child", "flow", "forkserver", "Prefect server", "terminal")
        ),
        LATER,
        4,
    ),
    Kind("MLflow server gone", "study", ("5 s", "60 s", "until the command has ended"), LATER),
    Kind("Prefect server gone", "study", ("5 s", "60 s", "until the command has ended"), LATER),
    Kind(
        "remote artifact fetched while its run still runs", "study", ("by another clone",), ("answers", "compare"), 0.5
    ),
)


class Fault(NamedTuple):
    """What happens, in which stage, and how far into it as a share of its usual time (or of its calls)."""

    seed: int
    number: int
    layer: str
    kind: str
    way: str
    stage: str
    moment: float

    @property
    def label(self) -> str:
        return f"{self.kind}: {self.way}, in {self.stage} at {self.moment:.2f}"

    @property
    def random(self) -> random.Random:
        """For what else is drawn: which file, which byte."""
        return random.Random(f"{self.seed} {self.number} more")


def draw(seed: int, number: int, layers: tuple[str, ...] = ("stages", "study")) -> Fault:
    """Fault `number` of a campaign."""
    drawn = random.Random(f"{seed} {number}")
    kinds = [kind for kind in KINDS if kind.layer in layers]
    [kind] = drawn.choices(kinds, [kind.weight for kind in kinds])
    way, stage = drawn.choice(kind.ways), drawn.choice(kind.stages)
    return Fault(seed, number, kind.layer, kind.name, way, stage, round(drawn.random(), 3))
