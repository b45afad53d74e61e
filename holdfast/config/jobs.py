"""What a stage's process is told to do: one JSON file in, one directory of files out. Imports no torch.

Run by hand: `python -m holdfast JOB.json OUT`. The process writes `metrics.jsonl` (lines of step and metrics) and
files while it runs, and `result.json` last. A job's key is the content of the job without paths, parallelism and
device, plus the digests of the code and of the lock file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from holdfast.config.base import Config
from holdfast.config.images import Images
from holdfast.config.measurement import Evaluation, Influence, LedgerSettings, Vllm
from holdfast.config.methods import AnyStage, OwnRollouts, Rollouts, SelfReasoning, TeacherFile
from holdfast.config.model import Recipe
from holdfast.config.prior import PriorBenchmark
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.config.results import FinishedStudy
from holdfast.config.schedule import When
from holdfast.config.study import Strategy, Study
from holdfast.config.targets import Target, Targets

STEPS = "steps"
"""Directory of a training in which its steps wait for its ledger; no part of the result."""


class Job(Config):
    """What all jobs share."""

    seed: int = 0
    threads: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def ranks(self) -> int:
        """Processes that do it together."""
        return 1


class Divided(Job):
    """What several processes may do together."""

    gpus: int = 1

    @property
    def ranks(self) -> int:
        return self.gpus


class MakeData(Job):
    """Ask the target's and the prior questions: target-{train,validation,test}.parquet, prior-NAME.parquet (test) and
    prior_validation-NAME.parquet; of several targets, target_{train,validation,test}-NAME.parquet."""

    verb: Literal["data"] = "data"
    images: Images
    target: Target
    targets: Targets = {}
    """In place of `target`."""
    prior: tuple[PriorBenchmark, ...]
    inputs: str = ""
    """Digest of the user's files that are read (photographs, imported benchmarks)."""


class BuildBase(Job):
    """Train the bundled base model into model/."""

    verb: Literal["base"] = "base"
    recipe: Recipe


class Check(Job):
    """Everything that can be refused before time is spent: model, trainer arguments, lengths. Writes nothing else."""

    verb: Literal["check"] = "check"
    study: Study
    data: DataRef | None = None
    """Without it, what the file says and the model's files show is checked, and nothing is found."""
    settled: bool = False
    """That was checked just before, so weights are not read again."""
    functions: dict[str, str] = {}
    """Digest of the module of every reward function of the user's own."""
    teachers: dict[str, str] = {}
    """Digest of every teacher's file, by its path."""


class Shards(Config):
    """A benchmark's questions."""

    name: str
    role: Literal["target", "prior"]
    test: FileRef
    validation: FileRef


class Drift(Config):
    """KL(base ‖ model) per token on the target's first test prompts."""

    target: Shards
    prompts: int
    kind: Literal["exact", "sampled"] = "exact"
    temperature: float = 1.0
    references: FileRef | None = None
    """references.parquet, the base's own samples on them; without it the one model is the base, and they are drawn."""


class PassAt(Config):
    """The chance that one of k samples of a target question is right."""

    target: Shards
    k: tuple[int, ...]
    temperature: float = 1.0


class Evaluate(Divided):
    """Ask checkpoints benchmarks: records/step-N/NAME.parquet, drift/step-N.parquet and pass_at/step-N.parquet."""

    verb: Literal["evaluate"] = "evaluate"
    models: tuple[ModelRef, ...]
    """Of one training, or the base alone; their steps differ."""
    base: ModelRef
    dtype: str = "float32"
    benchmarks: tuple[Shards, ...] = ()
    limit: int
    """Of a completion, in tokens."""
    validation: int
    """Validation questions of a benchmark, at most."""
    batch_size: int = 100
    drift: Drift | None = None
    pass_at: PassAt | None = None
    vllm: Vllm | None = None
    again: int | None = None
    """Batch size of a second evaluation of the same questions, whose answers are counted that differ."""
    units: dict[str, str] = {}
    """By key, every file that is written: what one checkpoint says to one benchmark is found again by it."""


class FromFile(Config):
    """A teacher's file, as it is."""

    kind: Literal["file"] = "file"
    file: FileRef
    settings: TeacherFile


class Sample(Divided):
    """Sample completions of the training prompts into samples.parquet, graded, filtered, with their provenance; or take
    them from a file."""

    verb: Literal["sample"] = "sample"
    source: Annotated[SelfReasoning | Rollouts | OwnRollouts | FromFile, Field(discriminator="kind")]
    model: ModelRef
    base: ModelRef
    dtype: str = "float32"
    data: DataRef
    questions: FileRef
    """target-train.parquet."""
    replayed: tuple[FileRef, ...] = ()
    """In place of `questions`, old ones, of which the source's `prompts` are asked each."""
    limit: int
    """Of a completion, in tokens."""
    batch_size: int = 100
    vllm: Vllm | None = None

    @property
    def ranks(self) -> int:
        return 1 if isinstance(self.source, FromFile) else self.gpus


class Train(Divided):
    """One stage of one arm. What it asks along the way, validation questions of all benchmarks, decides nothing."""

    verb: Literal["train"] = "train"
    stage: AnyStage
    start: ModelRef
    base: ModelRef
    dtype: str = "float32"
    data: DataRef
    questions: FileRef
    """target-train.parquet."""
    samples: FileRef | None = None
    """For the sources `self` and `rollouts`, and for a selection from any source."""
    priors: tuple[FileRef, ...] = ()
    """Training questions of prior benchmarks, where the stage replays or protects them."""
    earlier: tuple[FileRef, ...] = ()
    """The same of targets that the arm has learned before."""
    replayed: FileRef | None = None
    """The start's own right answers to some of these, where the stage replays them."""
    teacher: ModelRef | None = None
    """Another arm's end, or a model by its path, that the stage distils; by default its own, or the base."""
    limit: int
    """Of a completion that is generated, in tokens."""
    keep: When = "log"
    keep_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of kept weights."""
    evaluation: Evaluation = Evaluation()
    """For what is asked along the way."""
    functions: dict[str, str] = {}
    """Digest of the module of every reward function of the user's own."""
    keep_moments: bool = False
    """Leave the optimizer's second moments beside each kept checkpoint, for influence analysis."""
    keep_steps: bool = False
    """Leave all that happened in every step in `STEPS`, for a ledger, if the disk has room."""
    strategy: Strategy = "ddp"


class Blend(Job):
    """Models between two others, as checkpoints; nothing is trained."""

    verb: Literal["interpolate"] = "interpolate"
    start: ModelRef
    end: ModelRef
    shares: tuple[float, ...]


class Trial(Job):
    """Some steps of a stage on its longest samples, to see whether they fit and how long they take; keeps nothing."""

    verb: Literal["trial"] = "trial"
    train: Train
    prompts: int = 16
    """Prompts whose groups the base samples, to see in how many the rewards differ."""

    @property
    def ranks(self) -> int:
        return self.train.ranks


class TraceTrial(Job):
    """A stage's influence where it begins, of its longest samples on the longest questions; keeps nothing."""

    verb: Literal["trace_trial"] = "trace_trial"
    train: Train
    data: DataRef
    influence: Influence


class AskTrial(Job):
    """A batch of an evaluation's longest questions, asked of the base; keeps nothing."""

    verb: Literal["ask_trial"] = "ask_trial"
    evaluation: Evaluate
    """The base's."""


class Select(Divided):
    """Choose among a stage's samples by influence: samples.parquet with those that are kept."""

    verb: Literal["select"] = "select"
    train: Train
    """The stage that will learn from them; its start is where influence is measured."""
    data: DataRef
    influence: Influence
    ledger: FileRef | None = None
    """ledger.parquet of a training on all of the stage's samples."""


class Trace(Divided):
    """Trace a finished stage's forgetting to its samples: influence.parquet, path.parquet, sources.parquet."""

    verb: Literal["influence"] = "influence"
    train: Train
    data: DataRef
    kept: tuple[ModelRef, ...]
    """The stage's checkpoints, in order of their steps."""
    moments: tuple[FileRef, ...] = ()
    """The optimizer's second moments at each of them; without these, nothing is preconditioned."""
    rates: tuple[float, ...] = ()
    """Mean learning rate on the way to each of them."""
    influence: Influence

    @property
    def ranks(self) -> int:
        """Each takes a checkpoint."""
        return min(self.gpus, len(self.kept) + 1)


class Account(Job):
    """Account for each sample of each step of a finished stage: ledger.parquet, closure.parquet. What was not kept of
    its steps is made by training once more."""

    verb: Literal["ledger"] = "ledger"
    train: Train
    data: DataRef
    kept: tuple[ModelRef, ...]
    """All of the stage's checkpoints, in order of their steps."""
    influence: Influence
    """Questions, batches and precision."""
    settings: LedgerSettings = LedgerSettings()
    recorded: str = ""
    """Name of the directory, beside the stage's own, where `STEPS` of the training may wait, which then need not be
    taken again."""


class Predict(Divided):
    """Measure what may predict forgetting, of some checkpoints against the base: predictors.parquet."""

    verb: Literal["predictors"] = "predictors"
    models: tuple[ModelRef, ...]
    """Of one training; their steps differ."""
    base: ModelRef
    dtype: str = "float32"
    target: tuple[FileRef, ...]
    """Validation questions."""
    prior: tuple[FileRef, ...]
    prompts: int
    """Of these, and of those."""
    limit: int
    """Of a completion, in tokens."""
    temperature: float = 1.0
    batch_size: int = 100
    vllm: Vllm | None = None
    train: Train | None = None
    """The stage that made them, for what it learned from; nothing did for models between two others."""
    written: FileRef | None = None
    """completions.parquet, what a reinforced stage's policy wrote while it learned."""
    samples: int


class Compare(Job):
    """Write report.html, summary.json and figures/ from the finished runs of one study, or of several."""

    verb: Literal["compare"] = "compare"
    name: str
    factors: dict[str, tuple[str, ...]] = {}
    """The levels of each factor that the studies vary."""
    studies: tuple[FinishedStudy, ...]
    command: str
    """The command that does it again."""
    data_version: str
    """md5 in data.dvc."""
    code: str = ""
    """Digest of the holdfast sources."""
    failed: dict[str, str] = {}
    """Arms and analyses that did not finish, and why in one line."""


AnyJob = Annotated[
    MakeData
    | BuildBase
    | Check
    | Trial
    | TraceTrial
    | AskTrial
    | Evaluate
    | Sample
    | Select
    | Train
    | Blend
    | Trace
    | Account
    | Predict
    | Compare,
    Field(discriminator="verb"),
]
