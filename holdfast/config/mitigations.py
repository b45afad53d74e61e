"""What a stage does against forgetting (docs/mitigations.md has formulas and sources). Imports no torch."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from holdfast.config.base import Config

Kept = Literal["prior", "targets"]


class Replay(Config):
    """Some of the questions that a stage learns from are old ones."""

    share: float = Field(default=0.1, ge=0, lt=1)
    """Of the prompts that are learned from; 0 is plain training."""
    of: tuple[Kept, ...] = Field(default=("prior", "targets"), min_length=1)
    """`prior`: training questions of the prior benchmarks; `targets`: those that the arm has learned before."""
    answers: Literal["truth", "own"] = "truth"
    """`truth`: right completions as they stand in the data; `own`: what the model that the stage starts from says,
    where its grader finds that right. Of sft alone: what grpo learns from is its own always."""
    questions: PositiveInt = 256
    """Of each benchmark, at most, that are drawn from."""


class KL(Config):
    """A penalty on the distance per token from a model as it was."""

    weight: float = Field(ge=0)
    to: Literal["start", "base"] = "start"
    """The model as the stage found it, or the study's base."""
    prompts: Literal["target", "prior"] = "target"
    """Those of the batch that is learned from, or training questions of the prior benchmarks with their
    right completions."""
    direction: Literal["forward", "reverse"] = "forward"
    """`forward`: KL(then ‖ now); `reverse`: KL(now ‖ then)."""
    temperature: PositiveFloat = 1.0
    """What logits are divided by; the penalty is multiplied by its square. 2 is usual for distillation."""
    batch: PositiveInt = 8
    """Prior questions a step."""


class EWC(Config):
    """weight / 2 · Σ F (θ − θ*)², with F the diagonal of the empirical Fisher information at the stage's start."""

    weight: float = Field(ge=0)
    of: tuple[Kept, ...] = Field(default=("prior", "targets"), min_length=1)
    """Which questions' right completions F is of."""
    samples: PositiveInt = 64
    """How many, dealt out evenly over the benchmarks."""


class TALR(Config):
    """Token-adaptive loss: a token of probability p counts p^(1/τ), with no gradient through that."""

    tau: PositiveFloat | Literal["median"] = "median"
    """`median`: the batch's median loss of a token. Large τ is plain training."""


class Orthogonal(Config):
    """An adapter reads other directions than those of the stages before it (O-LoRA)."""

    weight: float = Field(default=0.5, ge=0)
    """Of the penalty Σ (A · A'ᵀ)², over modules and earlier adapters A'."""
    initial: bool = True
    """What lies in the span of their rows is taken out of A before training."""


class Mitigations(Config):
    """What all methods can have."""

    replay: Replay | None = None
    kl: KL | None = None
    l2: float = Field(default=0.0, ge=0)
    """Weight of l2 / 2 · Σ (θ − θ*)², the distance from the model as the stage found it."""
    ewc: EWC | None = None
    learn: tuple[str, ...] = ()
    """Only what one of these names learns, of what `freeze` leaves: `attention` (the language model's projections of
    queries, keys, values and outputs), `gate-up` (of its feed-forward layers), or words in parameters' names."""

    orthogonal: Orthogonal | None = None
    """To the adapters of the stages before; of an adapter alone."""

    @model_validator(mode="after")
    def _weights_have_no_adapter(self) -> Self:
        lora = getattr(self, "lora", None)
        adapter = lora is not None
        if self.orthogonal is not None and lora is None:
            raise ValueError("orthogonal: is about adapters, and this stage trains none; set lora, or remove it")
        if self.orthogonal is not None and (lora or {}).get("init_lora_weights", True) not in (True, "gaussian"):
            raise ValueError(
                "orthogonal: needs an adapter that begins with B = 0; leave lora.init_lora_weights out, or remove it"
            )
        for name, given in (("l2", self.l2), ("ewc", self.ewc), ("learn", self.learn)):
            if adapter and given:
                remedy = "name modules in lora.target_modules" if name == "learn" else "remove it, or remove lora"
                raise ValueError(f"{name}: is about the weights, which lora leaves as they are; {remedy}")
        return self

    @property
    def against(self) -> dict[str, Any]:
        """What is set, as a file has it."""
        return self.model_dump(mode="json", include={*Mitigations.model_fields, "talr"}, exclude_defaults=True)

    def needs(self, kind: Kept) -> bool:
        """Whether it takes training questions of the prior benchmarks, or of earlier targets."""
        own = [one.of for one in (self.replay, self.ewc) if one is not None]
        return any(kind in of for of in own) or (kind == "prior" and self.kl is not None and self.kl.prompts == "prior")
