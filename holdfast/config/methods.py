"""The ways to fine-tune, SFT, GRPO and distillation, and where what a stage learns from comes from."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from holdfast.config.base import Config, HubOrPath, LocalPath
from holdfast.config.mitigations import TALR, Mitigations
from holdfast.config.rewards import GradedTerm, RewardTerm, terms


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


class OwnRollouts(Config):
    """What the model that the stage starts from samples, filtered."""

    kind: Literal["own"] = "own"
    keep: Literal["correct", "all"] = "correct"
    per_prompt: PositiveInt = 4
    """Completions sampled for every training prompt."""
    prompts: PositiveInt | None = None
    """How many training prompts are sampled; by default all."""
    temperature: PositiveFloat = 1.0


class TeacherFile(Config):
    """Your own teacher's completions of the training questions, for example a 72B model's."""

    kind: Literal["file"] = "file"
    path: LocalPath
    """JSONL or Parquet with `id`, as in the target-train.parquet that `holdfast data FILE` makes, and `completion`."""
    keep: Literal["correct", "all"] = "correct"
    """Learn from those alone that the question's grader finds right; the others are counted."""


class Selection(Config):
    """A part of the training samples, chosen by their influence at the stage's first weights, or by a ledger."""

    by: Literal["magnitude", "direction", "loss", "ledger", "random"]
    """Smallest gradient per token; largest cosine with the gradient of the prior; smallest loss per token; least blamed
    for what the prior lost by the ledger of another arm's finished training; or a seeded draw, to compare with."""
    keep: float | None = Field(default=None, gt=0, lt=1)
    """The share that is kept."""
    drop: float | None = Field(default=None, gt=0, lt=1)
    """Or the share that is left out."""
    arm: str | None = None
    """With `ledger`, the arm that learned from all samples of the same source in a single stage."""

    @model_validator(mode="after")
    def _one_share(self) -> Self:
        if (self.keep is None) == (self.drop is None):
            raise ValueError("select: name either `keep` or `drop`")
        if (self.by == "ledger") != (self.arm is not None):
            raise ValueError("select: `by: ledger` needs the arm whose ledger it is, and nothing else does: `arm`")
        return self

    @property
    def share(self) -> float:
        """The share that is kept."""
        return self.keep if self.keep is not None else 1 - (self.drop or 0.0)


def _kinded(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Source = Annotated[
    Annotated[
        Answers | Teacher | SelfReasoning | Rollouts | OwnRollouts | TeacherFile,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_kinded),
]


class Stage(Mitigations):
    """What all methods share."""

    freeze: tuple[str, ...] = ("vis",)
    """What stays as it is: `vision`, `projector` or `language`, the parts of any architecture, or parameters whose name
    contains a word. `vis` is the vision tower with what lies in it, which architectures call visual, vision_tower or
    vision_model; a model of text has none, and all of it learns."""
    lora: dict[str, Any] | None = None
    """Arguments of peft.LoraConfig under its own names; without them, every parameter that is not frozen learns."""
    trainer: dict[str, Any] = {}
    """Arguments of TRL's config class under its own names, for example max_steps and learning_rate."""
    target: str | PositiveInt | None = None
    """Which of the study's `targets` it learns: a name, or a place in their order, from 1."""

    @property
    def unaccounted(self) -> list[str]:
        """The mitigations that no rule of a ledger covers."""
        return [name for name in ("kl", "l2", "ewc", "talr") if getattr(self, name, None)]


class SFT(Stage):
    """Supervised fine-tuning with TRL's SFTTrainer."""

    method: Literal["sft"]
    source: Source
    select: Selection | None = None
    """Learn from a part of the source's samples only; by default from all."""
    talr: TALR | None = None


class GRPO(Stage):
    """Reinforcement fine-tuning with TRL's GRPOTrainer and verifiable rewards."""

    method: Literal["grpo"]
    rewards: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")], RewardTerm],
        BeforeValidator(terms),
        Field(min_length=1),
    ] = {kind: GradedTerm(kind=kind) for kind in ("score", "accuracy", "format")}
    """Reward terms by name: a weight (`score: 1.0`), or a mapping with the term's own fields."""
    rollout_difference: float = Field(default=0.1, gt=0)
    """With `use_vllm`: how many nats vLLM's log-probabilities may be from the trainer's, in the mean over the tokens of
    a generation; beyond, the rollouts are another model's and the training stops."""

    @property
    def retains(self) -> bool:
        """Whether a reward asks the model as the stage found it."""
        return any(term.kind == "retention" for term in self.rewards.values())

    @property
    def unaccounted(self) -> list[str]:
        """On its own rollouts `kl` is the penalty of TRL's loss, which has an account."""
        own = self.kl is not None and self.kl.prompts == "target"
        return [name for name in super().unaccounted if not (own and name == "kl")]

    @model_validator(mode="after")
    def _mitigations_fit_reinforcement(self) -> Self:
        if self.replay is not None and self.replay.answers == "own":
            raise ValueError("replay.answers: grpo learns from its own answers to old questions always; leave it out")
        if self.kl is not None and self.kl.prompts == "target":
            if "beta" in self.trainer:
                raise ValueError("kl: on target prompts is TRL's beta, which trainer.beta sets too; leave one out")
            if (self.kl.direction, self.kl.temperature) != ("reverse", 1.0):
                raise ValueError(
                    "kl: on its own rollouts grpo has TRL's estimate of KL(now ‖ then) alone; say `direction: reverse` "
                    "without a temperature, or `prompts: prior`"
                )
            if self.kl.to == "base" and self.lora is not None:
                raise ValueError("kl.to: with lora, TRL's KL is from the model as the stage found it; say `to: start`")
        return self


class Demonstration(Config):
    """The model itself, shown a right completion of the question before it (SDFT)."""

    kind: Literal["demonstration"] = "demonstration"
    ema: float = Field(default=0.01, ge=0, le=1)
    """How far the teacher's weights go towards the model's after each step: 0 leaves them as the stage found them."""


class BaseTeacher(Config):
    """The study's base."""

    kind: Literal["base"] = "base"


class ArmTeacher(Config):
    """The end of another arm."""

    kind: Literal["arm"] = "arm"
    arm: str


class ModelTeacher(Config):
    """A model of your own or of the Hub, of the base's family and with its tokenizer."""

    kind: Literal["model"] = "model"
    path: HubOrPath
    """A checkpoint directory, or a Hub id."""


class Distill(Stage):
    """On-policy distillation: the model samples, and a teacher's distribution is what each of its tokens learns."""

    method: Literal["distill"]
    teacher: Annotated[
        Annotated[Demonstration | BaseTeacher | ArmTeacher | ModelTeacher, Field(discriminator="kind")],
        BeforeValidator(_kinded),
    ]

    @model_validator(mode="after")
    def _mitigations_fit_distillation(self) -> Self:
        if self.replay is not None and self.replay.answers == "own":
            raise ValueError("replay.answers: distill learns from its own answers always; leave it out")
        if self.kl is not None and self.kl.prompts == "target":
            raise ValueError("kl: on target prompts is the loss of distill itself; say `prompts: prior`")
        return self


def boxed_misfit(stage: SFT | GRPO | Distill) -> str:
    """What of a stage asks for tags that questions of the grader `boxed` do not ask for; empty if nothing does."""
    if isinstance(stage, SFT) and isinstance(stage.source, SelfReasoning):
        return "source: self learns reasoning in <think>, which `grader: boxed` does not ask for; use another source"
    for name, term in stage.rewards.items() if isinstance(stage, GRPO) else ():
        if term.kind == "format":
            return (
                f"rewards.{name}: pays for tags, which `grader: boxed` does not ask for; name the rewards without it, "
                "for example `rewards: {score: 1.0}`"
            )
    return ""


AnyStage = Annotated[SFT | GRPO | Distill, Field(discriminator="method")]


class Interpolate(Config):
    """No training: models between the base and another arm's end (WiSE-FT), each of which is evaluated."""

    method: Literal["interpolate"]
    arm: str
    """Whose end; it learns without an adapter."""
    shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(default=(0.25, 0.5, 0.75), min_length=1)
    """Of the way from the base to that end, ascending; the last one is this arm's end."""


ArmStage = Annotated[SFT | GRPO | Distill | Interpolate, Field(discriminator="method")]
