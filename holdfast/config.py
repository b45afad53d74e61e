"""The config classes of a study. People write sparse YAML, machines write the resolved JSON. Imports no torch."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from holdfast.frozen import Config as Config
from holdfast.frozen import HubOrPlace, Place
from holdfast.targets import Banner as Banner
from holdfast.targets import Classes as Classes
from holdfast.targets import Columns as Columns
from holdfast.targets import Counting as Counting
from holdfast.targets import Detection as Detection
from holdfast.targets import Jigsaw as Jigsaw
from holdfast.targets import Public as Public
from holdfast.targets import Spatial as Spatial
from holdfast.targets import Target as Target
from holdfast.terms import GradedTerm, RewardTerm, rewards_misfit, terms


class World(Config):
    """Procedural scenes: a sky-to-ground gradient, lit from one side, with one coloured shape in some of its cells."""

    source: Literal["world"] = "world"
    size: PositiveInt = 64
    """Side of a scene in pixels."""


class Folder(Config):
    """Photographs in a directory, read recursively (JPEG, PNG, WebP)."""

    source: Literal["folder"]
    path: Place | None = None
    """The directory; by default three photographs that scikit-learn and matplotlib ship."""
    tile: PositiveInt | None = None
    """Cut every photograph into disjoint square tiles of this side (pixels) and treat each as an image of its own; all
    tiles of a photograph are in one split."""
    size: PositiveInt = 64
    """Side in pixels to which an image is cropped (centre square) and resized before it is cut."""


class Hub(Config):
    """An image column of a Hugging Face data set."""

    source: Literal["hub"]
    name: HubOrPlace
    """Data set id on the Hub, or a local directory with such files."""
    revision: str | None = None
    split: str = "train"
    column: str = "image"
    size: PositiveInt = 64
    """Side in pixels to which an image is cropped (centre square) and resized before it is cut."""


Images = Annotated[World | Folder | Hub, Field(discriminator="source")]


PRIOR_NAMES = ("color", "shape", "count", "presence", "comparison", "pieces", "grounding", "digits")


class Prior(Config):
    """One of the bundled benchmarks of prior knowledge, asked about scenes of the world."""

    benchmark: Literal["color", "shape", "count", "presence", "comparison", "pieces", "grounding", "digits"]
    questions: PositiveInt = 100
    """Questions in the test set."""
    validation: PositiveInt = 64
    """Questions in the validation set, by which checkpoints are chosen, alarms go off and influence is measured."""

    @property
    def name(self) -> str:
        return self.benchmark


class Imported(Config):
    """Your own prior benchmark: rows of image, question and answer in a JSONL or Parquet file."""

    benchmark: Literal["imported"] = "imported"
    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    """Its name in metrics and reports."""
    path: Place
    """JSONL or Parquet; an image is a path relative to the file, bytes, base64, a data URI, pixels, or a list of these.
    """
    validation_path: Place | None = None
    """Validation questions in a file of the same kind. Without it, the rows of a tenth of the images, at least of two
    and with at most 64 questions, are set apart for validation and not tested on."""
    grader: str = "exact"
    """`exact`, `number`, `choice`, `box`, `contains`, `detection` or `vqa` (docs/graders.md); a `grader` column
    overrides it row by row."""


def _named(value: Any) -> Any:
    if isinstance(value, str):
        return {"benchmark": value}
    if isinstance(value, dict) and "benchmark" not in value and "path" in value:
        return {"benchmark": "imported", **value}
    return value


PriorBenchmark = Annotated[
    Annotated[Prior | Imported, Field(discriminator="benchmark")],
    BeforeValidator(_named),
]


class Recipe(Config):
    """How the bundled base model is built; docs/decisions.md says why these values."""

    warmup_steps: PositiveInt = 550
    """Steps of dense vision warm-up (what every cell holds, and where)."""
    steps: PositiveInt = 900
    """Steps of mixed prior questions."""
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 2e-3
    """AdamW's: of the vision tower, of embeddings and of norms."""
    matrix_learning_rate: PositiveFloat = 4e-3
    """Muon's: of the language model's layers."""
    forms: tuple[Literal["classes", "spatial", "banner", "detection", "counting"], ...] = ()
    """Targets, beside the jigsaw, whose form of answer the base is taught, with random answers."""
    facts: NonNegativeInt = 0
    """Facts about the picture that the reasoning in such forms states at most; a random number of them, so that
    completions differ in length. With 0, it says only that it looks."""
    threads: PositiveInt = 2
    """CPU threads of the building process; they change no result."""


class Model(Config):
    """The base model."""

    path: HubOrPlace = "bundled"
    """`bundled`, a Hub id such as Qwen/Qwen2.5-VL-3B-Instruct, or a local checkpoint directory."""
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """What models compute in when they are measured, sampled, and on a GPU trained; `auto` is what the base was saved
    in. Weights that learn are always kept in float32."""
    recipe: Recipe = Recipe()
    """Used when `path` is `bundled`."""


class Answers(Config):
    """Ground truth alone."""

    kind: Literal["answers"] = "answers"


class Teacher(Config):
    """A foreign style of reasoning, then the right answer."""

    kind: Literal["teacher"] = "teacher"


class SelfReasoning(Config):
    """The base model's own sampled reasoning, then the right answer."""

    kind: Literal["self"] = "self"
    temperature: PositiveFloat = 1.0


class Rollouts(Config):
    """What a trained arm samples, filtered."""

    kind: Literal["rollouts"] = "rollouts"
    arm: str
    """The arm that is sampled."""
    step: PositiveInt | Literal["last"] = "last"
    """Its checkpoint."""
    keep: Literal["correct", "all"] = "correct"
    per_prompt: PositiveInt = 4
    """Completions sampled for every training prompt."""
    prompts: PositiveInt | None = None
    """How many training prompts are sampled; by default all."""
    temperature: PositiveFloat = 1.0


class Selection(Config):
    """A part of the training samples, chosen by their influence at the stage's first weights."""

    by: Literal["magnitude", "direction", "random"]
    """Smallest gradient per token; strongest pull towards the prior for its size (cosine); or a seeded draw of as many,
    to compare with."""
    keep: float = Field(gt=0, lt=1)
    """The share that is kept."""


def _kinded(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Source = Annotated[
    Annotated[Answers | Teacher | SelfReasoning | Rollouts, Field(discriminator="kind")],
    BeforeValidator(_kinded),
]


class Stage(Config):
    """What both methods share."""

    freeze: tuple[str, ...] = ("vis",)
    """Parameters whose name contains one of these words stay as they are. `vis` is the vision tower, which
    architectures call visual, vision_tower or vision_model."""
    lora: dict[str, Any] | None = None
    """Arguments of peft.LoraConfig under its own names; without them, every parameter that is not frozen learns."""
    trainer: dict[str, Any] = {}
    """Arguments of TRL's config class under its own names, for example max_steps and learning_rate."""


class SFT(Stage):
    """Supervised fine-tuning with TRL's SFTTrainer."""

    method: Literal["sft"]
    source: Source
    select: Selection | None = None
    """Learn from a part of the source's samples only; by default from all."""


class GRPO(Stage):
    """Reinforcement fine-tuning with TRL's GRPOTrainer and verifiable rewards."""

    method: Literal["grpo"]
    rewards: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")], RewardTerm],
        BeforeValidator(terms),
        Field(min_length=1),
    ] = {kind: GradedTerm(kind=kind) for kind in ("score", "accuracy", "format")}
    """Reward terms by name: a weight (`score: 1.0`), or a mapping with the term's own fields."""


AnyStage = Annotated[SFT | GRPO, Field(discriminator="method")]


class Evaluation(Config):
    """When and how models are measured."""

    every: PositiveFloat = 0.25
    """Steps between evaluations; below 1, a share of the stage's steps. The end is always evaluated."""
    validation: PositiveInt = 32
    """Validation questions of the target and of each prior benchmark, at most. Alarms and the choice of checkpoints go
    by these; test questions are for reporting only."""
    batch_size: PositiveInt = 100
    max_new_tokens: PositiveInt = 96
    """Limit of a completion, in tokens."""
    pass_at: tuple[PositiveInt, ...] = ()
    """Also sample the target and report the chance that one of k samples is right, for these k."""
    temperature: PositiveFloat = 1.0
    """Of the samples for pass@k and drift; answers are greedy."""
    drift_prompts: PositiveInt = 64
    """Target prompts on which the drift KL is measured."""
    drift: Literal["exact", "sampled"] = "exact"
    """`exact` reads the base beside the model, which takes memory for both; `sampled` estimates the KL from the base's
    samples alone, mostly too low by a tenth or so."""


LEAST_PROMPTS = 6
"""Of fewer, no paired difference can be told from chance: the least p of a sign test is 2^(1 − prompts)."""


class Influence(Config):
    """How forgetting is traced to training samples, at every kept checkpoint of every stage."""

    samples: PositiveInt = 48
    """Training samples of each source; the same first prompts for all arms. For GRPO, rollouts of the checkpoint, in
    whole groups, of six prompts at least."""
    questions: int = Field(default=16, ge=2)
    """Validation questions of each benchmark, at most, whose gradients make a target; odd and even ones are two
    disjoint halves."""
    batch_size: PositiveInt = 32
    probes: int = Field(default=1, ge=0)
    """Random-logit probes of the norm of the eNTK, on each side; 0 for none."""


class Compute(Config):
    """Where stages run. Parallelism changes no result; threads may change rounding."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt = 1
    """CPU threads of a stage's process."""
    parallel: PositiveInt | None = None
    """Stages at a time; by default one a GPU, or cores / threads."""


class Study(Config):
    """One experiment file."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    seed: int = 0
    images: Images = World()
    """What jigsaws are cut from; every other target has images of its own."""
    target: Target = Jigsaw()
    prior: tuple[PriorBenchmark, ...] = Field(default=tuple(Prior(benchmark=n) for n in PRIOR_NAMES), min_length=1)
    model: Model = Model()
    arms: dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")],
        Annotated[tuple[AnyStage, ...], Field(min_length=1)],
    ] = Field(min_length=1)
    """Each arm is an ordered list of stages."""
    evaluation: Evaluation = Evaluation()
    influence: Influence | None = None
    """Trace forgetting to training samples; without this block, nothing is traced."""
    compute: Compute = Compute()
    sweep: str = ""
    """The sweep that this study belongs to, set by `vary`: its studies share an experiment in MLflow."""

    @property
    def experiment(self) -> str:
        """Its name in MLflow and in data/."""
        return self.sweep or self.name

    def sampled_arms(self, arm: str) -> set[str]:
        """The arms whose rollouts an arm learns from."""
        sources = (stage.source for stage in self.arms[arm] if isinstance(stage, SFT))
        return {source.arm for source in sources if isinstance(source, Rollouts)}

    @model_validator(mode="after")
    def _rewards_fit_the_target(self) -> Self:
        neighbours = isinstance(self.target, Jigsaw) and self.target.question == "full"
        for arm, stages in self.arms.items():
            for number, stage in enumerate(stages):
                if isinstance(stage, GRPO) and (
                    misfit := rewards_misfit(stage.rewards, self.target.thinking, neighbours)
                ):
                    raise ValueError(f"arms.{arm}.{number}.rewards.{misfit}")
        return self

    @model_validator(mode="after")
    def _rollouts_come_from_other_arms(self) -> Self:
        sampled = {arm: self.sampled_arms(arm) for arm in self.arms}
        for arm, others in sampled.items():
            for other in others - self.arms.keys():
                raise ValueError(f"arms.{arm}: its source samples {other!r}, which is none of {', '.join(self.arms)}")
        try:
            TopologicalSorter(sampled).prepare()
        except CycleError as error:
            circle = " ← ".join(error.args[1])
            raise ValueError(f"arms: {circle} sample each other; one of them needs another source") from None
        return self


class Member(Config):
    """A study of a sweep."""

    levels: dict[str, str]
    """The level of each factor."""
    study: Study


class Sweep(Config):
    """An experiment file with `vary`: the same study for every combination of some factors' levels."""

    name: str
    factors: dict[str, tuple[str, ...]]
    """The levels of each factor, in the file's order."""
    members: Annotated[tuple[Member, ...], Field(min_length=1)]
