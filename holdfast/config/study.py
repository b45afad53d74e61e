"""A study: one experiment file. People write sparse YAML, machines write the resolved JSON. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from holdfast.config.base import Config
from holdfast.config.images import Images, World
from holdfast.config.measurement import Evaluation, Influence, Predictors
from holdfast.config.methods import (
    GRPO,
    SFT,
    AnyStage,
    ArmStage,
    ArmTeacher,
    BaseTeacher,
    Distill,
    Interpolate,
    Rollouts,
    boxed_misfit,
)
from holdfast.config.model import Model
from holdfast.config.prior import PRIOR_NAMES, Prior, PriorBenchmark
from holdfast.config.rewards import rewards_misfit
from holdfast.config.targets import Banner, Jigsaw, Target, Targets

Strategy = Literal["ddp", "fsdp2", "zero3"]


class Compute(Config):
    """Where stages run. Parallelism changes no result; threads and GPUs may change rounding."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt = 1
    """CPU threads of a stage's process."""
    parallel: PositiveInt | None = None
    """Stages at a time; by default one a GPU, or cores / threads."""
    gpus: PositiveInt = 1
    """GPUs of this machine that train together, evaluate, sample and measure predictors; with `device: cpu`, processes.
    They share a step's batch, and what is asked."""
    strategy: Strategy = "ddp"
    """How they train: with `ddp` each holds the whole model; with `fsdp2` (PyTorch's) and `zero3` (DeepSpeed's), a part
    of weights, gradients and moments."""

    runner: Literal["here", "ray"] = "here"
    """Whether stages run on this machine or on the nodes of the Ray cluster at RAY_ADDRESS; `parallel` is then each
    machine's, and `gpus` are of one node."""


class Study(Config):
    """One experiment file."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    seed: int = 0
    images: Images = World()
    """What jigsaws are cut from; every other target has images of its own."""
    target: Target = Jigsaw()
    targets: Targets = {}
    """Several targets in place of one, by their benchmarks' names: each stage of an arm then says which it learns."""
    order: tuple[str, ...] = ()
    """The order of `targets` by which stages that give a number mean them; by default as they stand there. What is
    asked, and the data, is the same in every order."""
    prior: tuple[PriorBenchmark, ...] = Field(default=tuple(Prior(benchmark=n) for n in PRIOR_NAMES), min_length=1)
    model: Model = Model()
    arms: dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")],
        Annotated[tuple[ArmStage, ...], Field(min_length=1)],
    ] = Field(min_length=1)
    """Each arm is an ordered list of stages."""
    replicates: PositiveInt = 1
    """How often each arm is trained, on the same data and base, with another training seed: the order of samples,
    sampling and the adapters' initialisation. Without two, no arm can be said to be better than another."""
    evaluation: Evaluation = Evaluation()
    influence: Influence | None = None
    """Trace forgetting to training samples; without this block, nothing is traced."""
    predictors: Predictors | None = None
    """Measure what may predict forgetting: KL to the base, parameter movement, entropy, perplexity; `{}` for the
    defaults. It trains and evaluates nothing again."""
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

    @property
    def all_targets(self) -> dict[str, Target]:
        """What is learned, by name."""
        return self.targets or {self.target.benchmark: self.target}

    @property
    def skills(self) -> str:
        """What is learned, for people."""
        return ", ".join(self.all_targets)

    @property
    def reads_data(self) -> bool:
        """Whether questions are made of anything but the world that comes with holdfast: of files, or of the Hub's."""
        targets = self.all_targets.values()
        cut = any(isinstance(target, Jigsaw) for target in targets) and not isinstance(self.images, World)
        read = any(getattr(target, field, None) for target in targets for field in ("public", "path"))
        return cut or read or not all(isinstance(prior, Prior) for prior in self.prior)

    def learned_by(self, stage: AnyStage) -> str:
        """The name of the target that a stage learns."""
        if isinstance(stage.target, int):
            return (self.order or tuple(self.targets))[stage.target - 1]
        return stage.target or next(iter(self.all_targets))

    def target_of(self, stage: AnyStage) -> Target:
        """The target that a stage learns."""
        return self.all_targets[self.learned_by(stage)]

    def training_seed(self, replicate: int) -> int:
        """The seed of an arm's replicate, which count from 1; the first has the study's own."""
        if replicate <= 1:
            return self.seed
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{replicate}".encode()).digest()[:4])

    @property
    def trained(self) -> dict[str, tuple[AnyStage, ...]]:
        """The arms that are trained, in their order."""
        own = {a: tuple(one for one in stages if not isinstance(one, Interpolate)) for a, stages in self.arms.items()}
        return {arm: stages for arm, stages in own.items() if stages}

    def waits_for(self, arm: str) -> set[str]:
        """The arms that an arm waits for: their rollouts or their end teach it, their ledger chooses, or it leads to
        their end."""
        trained = self.trained.get(arm, ())
        stages = [stage for stage in trained if isinstance(stage, SFT)]
        teachers = [stage.teacher for stage in trained if isinstance(stage, Distill)]
        blamed = {stage.select.arm for stage in stages if stage.select is not None and stage.select.arm is not None}
        ends = {stage.arm for stage in self.arms[arm] if isinstance(stage, Interpolate)}
        ends |= {teacher.arm for teacher in teachers if isinstance(teacher, ArmTeacher)}
        return ends | blamed | {stage.source.arm for stage in stages if isinstance(stage.source, Rollouts)}

    def _stages(self) -> Iterator[tuple[str, AnyStage]]:
        """Every stage, and where it stands in the file."""
        for arm, stages in self.trained.items():
            yield from ((f"arms.{arm}.{number}", stage) for number, stage in enumerate(stages))

    @model_validator(mode="after")
    def _stages_name_their_targets(self) -> Self:
        if self.targets and self.target != Jigsaw():
            raise ValueError("target: there are `targets` too; say all of them there and leave `target` out")
        if self.order and sorted(self.order) != sorted(self.targets):
            raise ValueError(
                f"order: name each of {', '.join(self.targets) or '`targets`, of which there are none,'} once"
            )
        for where, stage in self._stages():
            if self.targets and stage.target is None:
                raise ValueError(f"{where}.target: say which it learns: {', '.join(self.targets)}, or a place from 1")
            known = range(1, len(self.targets) + 1) if isinstance(stage.target, int) else self.all_targets
            if stage.target is not None and stage.target not in known:
                named = ", ".join(self.all_targets)
                raise ValueError(f"{where}.target: {stage.target!r} is none of {named}" + self._places())
            if self.targets and isinstance(stage, SFT) and stage.select:
                raise ValueError(f"{where}.select: chooses in studies of one target; remove it or use `target`")
        return self

    def _places(self) -> str:
        return f", nor a place from 1 to {len(self.targets)}" if self.targets else ""

    @model_validator(mode="after")
    def _mitigations_have_questions(self) -> Self:
        trained = any(getattr(prior, "train", None) or getattr(prior, "train_path", None) for prior in self.prior)
        for arm, stages in self.trained.items():
            for number, stage in enumerate(stages):
                penalty = next((name for name in ("kl", "ewc", "l2") if getattr(stage, name)), "")
                if penalty and self.compute.gpus > 1 and self.compute.strategy != "ddp":
                    raise ValueError(
                        f"arms.{arm}.{number}.{penalty}: needs the whole model, and compute.strategy "
                        f"{self.compute.strategy} leaves each GPU a part; set it to ddp"
                    )
                old = stage.needs("targets") and any(self.earlier(arm, one) for one in range(len(stages)))
                if not trained and ((stage.needs("prior") and not old) or (stage.kl and stage.kl.prompts == "prior")):
                    name = "replay" if stage.replay else "kl" if stage.kl and stage.kl.prompts == "prior" else "ewc"
                    raise ValueError(
                        f"arms.{arm}.{number}.{name}: no prior benchmark has training questions; set `train: 500` "
                        "of a bundled one, or `train_path` of your own"
                    )
                if not old and stage.needs("targets") and not stage.needs("prior"):
                    name = "replay" if stage.replay else "ewc"
                    raise ValueError(f"arms.{arm}.{number}.{name}: this arm learns no target before; say `of: [prior]`")
        return self

    def earlier(self, arm: str, number: int) -> list[str]:
        """The targets that an arm has learned before one of its stages, and does not learn in it."""
        stages = self.trained[arm]
        before = dict.fromkeys(self.learned_by(stage) for stage in stages[:number])
        return [name for name in before if name != self.learned_by(stages[number])]

    @model_validator(mode="after")
    def _rewards_fit_the_target(self) -> Self:
        for where, stage in self._stages():
            target = self.target_of(stage)
            neighbours = isinstance(target, Jigsaw) and target.question == "full"
            if isinstance(stage, GRPO) and (misfit := rewards_misfit(stage.rewards, target.thinking, neighbours)):
                raise ValueError(f"{where}.rewards.{misfit}")
        return self

    @model_validator(mode="after")
    def _boxes_are_learned_without_tags(self) -> Self:
        for where, stage in self._stages():
            target = self.target_of(stage)
            if isinstance(target, Banner) and target.boxed and (misfit := boxed_misfit(stage)):
                raise ValueError(f"{where}.{misfit}")
        return self

    @model_validator(mode="after")
    def _distillation_can_run(self) -> Self:
        for where, stage in self._stages():
            if not isinstance(stage, Distill):
                continue
            if self.influence is not None:
                raise ValueError(f"{where}: influence has no rule for distill; remove influence, or this stage")
            if isinstance(stage.teacher, BaseTeacher) and where.endswith(".0"):
                raise ValueError(
                    f"{where}.teacher: the arm starts from the base, so nothing is learned from it; name another arm, "
                    "`demonstration`, or train a stage before"
                )
        return self

    @model_validator(mode="after")
    def _adapters_have_others_before(self) -> Self:
        for arm, stages in self.trained.items():
            for number, stage in enumerate(stages):
                if stage.orthogonal is None:
                    continue
                where = f"arms.{arm}.{number}.orthogonal"
                if number == 0 or stages[number - 1].lora is None:
                    raise ValueError(f"{where}: the stage before it trains no adapter to be orthogonal to; remove it")
                if self.influence is not None or (isinstance(stage, SFT) and stage.select is not None):
                    raise ValueError(
                        f"{where}: influence, or select, does not know where such an adapter begins; leave one out"
                    )
        return self

    @model_validator(mode="after")
    def _retention_can_be_rewarded(self) -> Self:
        for where, stage in self._stages():
            if not isinstance(stage, GRPO) or not stage.retains:
                continue
            name = next(name for name, term in stage.rewards.items() if term.kind == "retention")
            if self.influence is not None:
                raise ValueError(
                    f"{where}.rewards.{name}: influence grades rollouts without the model that retention is rewarded "
                    "by; leave influence out, or this term"
                )
            if self.compute.gpus > 1 and self.compute.strategy != "ddp":
                raise ValueError(
                    f"{where}.rewards.{name}: needs the whole model, and compute.strategy {self.compute.strategy} "
                    "leaves each GPU a part; set it to ddp"
                )
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

    def accounted(self, arm: str) -> bool:
        """Whether an arm has a ledger."""
        chosen = (stage.select for _, stage in self._stages() if isinstance(stage, SFT) and stage.select is not None)
        return any(one.arm == arm for one in chosen) or (
            self.influence is not None and self.influence.ledger is not None
        )

    @model_validator(mode="after")
    def _ledgers_have_rules(self) -> Self:
        for arm, stages in self.trained.items():
            for number, stage in enumerate(stages if self.accounted(arm) else ()):
                beyond = list(stage.unaccounted)
                beyond += ["lora.lora_dropout"] if (stage.lora or {}).get("lora_dropout") else []
                if beyond or self.compute.strategy != "ddp":
                    named = (
                        f"arms.{arm}.{number}.{beyond[0]}" if beyond else f"compute.strategy: {self.compute.strategy}"
                    )
                    raise ValueError(f"{named}: no rule of a ledger covers it; leave it out, or the ledger of {arm}")
        return self

    @model_validator(mode="after")
    def _influence_has_answers(self) -> Self:
        stages = (stage for arm in self.trained.values() for stage in arm)
        selects = any(isinstance(stage, SFT) and stage.select is not None for stage in stages)
        if (self.influence is not None or selects) and any(prior.benchmark == "ifeval" for prior in self.prior):
            raise ValueError(
                "prior: ifeval has no right answer whose gradient influence, or select, needs; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _predictors_have_room(self) -> Self:
        if self.predictors is not None and self.evaluation.drift == "sampled":
            raise ValueError(
                "predictors: they read the base beside every checkpoint, and `evaluation.drift: sampled` is for where "
                "both do not fit; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _ends_are_of_weights(self) -> Self:
        for arm, stages in self.arms.items():
            between = [one for one in stages if isinstance(one, Interpolate)]
            if between and len(stages) > 1:
                raise ValueError(f"arms.{arm}: interpolate is a whole arm; leave the other stages out")
            for one in between:
                trained = self.trained.get(one.arm)
                if trained is None or any(stage.lora is not None for stage in trained):
                    known = [name for name, own in self.trained.items() if all(stage.lora is None for stage in own)]
                    raise ValueError(
                        f"arms.{arm}.0.arm: name one that trains without lora: {', '.join(known) or 'none does'}"
                    )
                if list(one.shares) != sorted(set(one.shares)):
                    raise ValueError(f"arms.{arm}.0.shares: name them in ascending order, each once")
        return self

    @model_validator(mode="after")
    def _rollouts_come_from_other_arms(self) -> Self:
        sampled = {arm: self.waits_for(arm) for arm in self.arms}
        for arm, others in sampled.items():
            for other in others - self.arms.keys():
                raise ValueError(f"arms.{arm}: it needs the arm {other!r}, which is none of {', '.join(self.arms)}")
        try:
            TopologicalSorter(sampled).prepare()
        except CycleError as error:
            circle = " ← ".join(error.args[1])
            raise ValueError(f"arms: {circle} need each other; one of them has to learn from something else") from None
        return self
