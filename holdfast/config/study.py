"""A study: one experiment file. People write sparse YAML, machines write the resolved JSON. Imports no torch."""

from __future__ import annotations

import hashlib
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from holdfast.config.base import Config
from holdfast.config.images import Images, World
from holdfast.config.measurement import Evaluation, Influence
from holdfast.config.methods import GRPO, SFT, AnyStage, Rollouts
from holdfast.config.model import Model
from holdfast.config.prior import PRIOR_NAMES, Prior, PriorBenchmark
from holdfast.config.rewards import rewards_misfit
from holdfast.config.targets import Jigsaw, Target


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
    replicates: PositiveInt = 1
    """How often each arm is trained, on the same data and base, with another training seed: the order of samples,
    sampling and the adapters' initialisation. Without two, no arm can be said to be better than another."""
    evaluation: Evaluation = Evaluation()
    influence: Influence | None = None
    """Trace forgetting to training samples; without this block, nothing is traced."""
    compute: Compute = Compute()
    checkpoints: Literal["all", "last", "best"] | PositiveInt = "all"
    """Which of a training's checkpoints `holdfast gc` leaves once the study has its report: all of them, the last, so
    many of the last, or, as `best`, only those that the model registry names, which always stay."""
    budget: PositiveFloat | None = None
    """Hours of one command: no training begins that would not end, and be measured, within them. The report names what
    was left out, and the same command goes on with it."""
    sweep: str = ""
    """The sweep that this study belongs to, set by `vary`: its studies share an experiment in MLflow."""

    @property
    def experiment(self) -> str:
        """Its name in MLflow and in data/."""
        return self.sweep or self.name

    def training_seed(self, replicate: int) -> int:
        """The seed of an arm's replicate, which count from 1; the first has the study's own."""
        if replicate <= 1:
            return self.seed
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{replicate}".encode()).digest()[:4])

    def sampled_arms(self, arm: str) -> set[str]:
        """The arms that an arm waits for: it learns from their rollouts, or chooses by their ledger."""
        stages = [stage for stage in self.arms[arm] if isinstance(stage, SFT)]
        blamed = {stage.select.arm for stage in stages if stage.select is not None and stage.select.arm is not None}
        return blamed | {stage.source.arm for stage in stages if isinstance(stage.source, Rollouts)}

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
    def _ledgers_are_of_the_same_samples(self) -> Self:
        for arm, stages in self.arms.items():
            for stage in stages:
                if not isinstance(stage, SFT) or stage.select is None or stage.select.arm not in self.arms:
                    continue
                [first, *others] = self.arms[stage.select.arm]
                alike = isinstance(first, SFT) and first.source == stage.source and first.select is None
                if others or len(stages) > 1 or not alike:
                    raise ValueError(
                        f"arms.{arm}: {stage.select.arm}, whose ledger selects, has to learn in one stage from all "
                        "samples of the same source"
                    )
        return self

    @model_validator(mode="after")
    def _influence_has_answers(self) -> Self:
        stages = (stage for arm in self.arms.values() for stage in arm)
        selects = any(isinstance(stage, SFT) and stage.select is not None for stage in stages)
        if (self.influence is not None or selects) and any(prior.benchmark == "ifeval" for prior in self.prior):
            raise ValueError(
                "prior: ifeval has no right answer whose gradient influence, or select, needs; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _rollouts_come_from_other_arms(self) -> Self:
        sampled = {arm: self.sampled_arms(arm) for arm in self.arms}
        for arm, others in sampled.items():
            for other in others - self.arms.keys():
                raise ValueError(f"arms.{arm}: it needs the arm {other!r}, which is none of {', '.join(self.arms)}")
        try:
            TopologicalSorter(sampled).prepare()
        except CycleError as error:
            circle = " ← ".join(error.args[1])
            raise ValueError(f"arms: {circle} need each other; one of them has to learn from something else") from None
        return self
