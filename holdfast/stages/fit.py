"""Whether a study fits this machine: what every stage needs against what is there."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import psutil
import torch
from trl import GRPOConfig

from holdfast.config.measurement import Influence, LedgerSettings
from holdfast.config.methods import GRPO, SFT, AnyStage, Distill
from holdfast.config.schedule import scheduled
from holdfast.config.study import Study
from holdfast.errors import UserError
from holdfast.influence.engine.parameter import MOVED_AT_ONCE
from holdfast.influence.parts import COPIES, block_sizes, choose, depth, target_count
from holdfast.models.precision import HALF as HALVES
from holdfast.models.shape import Shape, shape_of
from holdfast.stages import needs
from holdfast.stages.asking import Asking, asking, measuring, size_of
from holdfast.stages.needs import GB, Batch, Memory, Method, Pass, Precision, Tracing, gb
from holdfast.training.arguments import TrainerConfig, anywhere, length, says_checkpointing, share
from holdfast.training.stage import LARGE


class Adapted(NamedTuple):
    """The study's model as a stage adapts it."""

    shape: Shape
    traced: Shape
    """The same where influence measures: in what it measures in, and of the layers from the lowest of these on."""
    block: int
    """Parameters of the largest block of layers that influence measures in."""


def shape_for(model: Any, settings: Influence | None) -> Adapted:
    """Of a model whose parameters that learn are marked; afterwards those are that influence is measured in.

    Raises:
        UserError: the settings name a layer that does not learn.
    """
    shape = shape_of(model)
    choose(model, settings.layers if settings else ())
    return Adapted(shape, shape_of(model)._replace(layers=depth(model)), max(block_sizes(model).values()))


class Room(NamedTuple):
    """Bytes that are there."""

    training: int
    """Of the device that trains."""
    host: int | None
    """Beside it; None where the host trains."""


class Lengths(NamedTuple):
    """Of a stage's longest sample."""

    prompt: int
    completion: int
    patches: int
    read: int = 0
    """Tokens of the longest question of any benchmark, which influence reads with its answer."""
    seen: int = 0
    """Patches of that question's images."""


class Need(NamedTuple):
    """What a stage of an arm takes."""

    shape: Shape
    memory: Memory
    asking: Asking
    """For evaluating what it leaves."""
    disk: needs.Disk
    influence: Tracing | None
    """For tracing it, where the study traces."""
    ledger: Tracing | None
    """For accounting for it, where the study does."""
    steps: int
    operations: int
    """Of an optimizer step, generation apart."""

    def noted(self) -> dict[str, Any]:
        """As JSON has it."""
        parts = {name: getattr(self.memory, name) for name in ("fixed", "step", "total")}
        memory = self.memory._asdict() | parts
        facts: dict[str, Any] = {"steps": self.steps, "operations": self.operations}
        for name, one in (("asking", self.asking), ("influence", self.influence), ("ledger", self.ledger)):
            facts |= {name: one and one._asdict() | {"total": one.total}}
        return {"shape": self.shape._asdict(), "memory": memory, "disk": self.disk._asdict(), **facts}


def need_of(stage: AnyStage, study: Study, adapted: Adapted, lengths: Lengths, card: int) -> Need:
    """What a stage of a study takes with its longest samples, on a GPU of so many bytes, or on none."""
    shape = adapted.shape
    config = anywhere(stage, study.evaluation.max_new_tokens)
    whole = length(config, study.target_of(stage).train)
    config = shared(config, stage, study.compute.gpus)
    precision = precision_of(study, shape, card > 0)
    method = method_of(config, stage, study, shape)._replace(**_together(study), **vllm_of(config, card))
    batch = batch_of(config, lengths)
    memory = needs.memory(shape, precision, batch, method)
    asked = asked_of(study, lengths)
    copied = method.parts > 1 or size_of(study) < precision.weights
    memory = memory._replace(measuring=measuring(study, shape, asked, copied))
    kept = scheduled(study.evaluation.keep, whole.steps, whole.period)
    size = needs.HALF if study.evaluation.keep_dtype == "bfloat16" else needs.FLOAT32
    disk = needs.disk(shape, len(kept), size, study.influence is not None, method.parts > 1)
    benchmarks = len(study.all_targets) + len(study.prior)
    ledger = ledger_memory(study, shape, lengths, precision, config) if is_accounted(stage, study) else None
    if ledger is not None:
        # At every node, in the middle of every way between two, and the mean of one.
        gradients = benchmarks * (2 * (len(kept) + ledger_settings(study).nodes) + 2)
        disk = disk._replace(running=max(disk.running, needs.ledger_disk(shape, whole.steps, gradients)))
    return Need(
        shape=shape,
        memory=memory,
        asking=asking(study, shape, asked, card),
        disk=disk,
        influence=influence_memory(study, benchmarks, adapted, lengths) if study.influence else None,
        ledger=ledger,
        steps=whole.steps,
        operations=needs.operations(shape, batch, method) * config.gradient_accumulation_steps,
    )


def is_accounted(stage: AnyStage, study: Study) -> bool:
    """Whether a stage's arm has a ledger, by the study's own wish or by that of an arm that chooses by it."""
    return any(stage in stages and study.accounted(arm) for arm, stages in study.trained.items())


def ledger_settings(study: Study) -> LedgerSettings:
    """The study's own, or those of a ledger that it makes for a choice alone."""
    return (study.influence and study.influence.ledger) or LedgerSettings()


def ledger_memory(study: Study, shape: Shape, lengths: Lengths, precision: Precision, config: TrainerConfig) -> Tracing:
    """Of the model, the gradients that samples are held against, and a pass."""
    # Tokens are held against two mixtures of benchmarks; a KL penalty has a gradient of its own.
    held = len(study.all_targets) + len(study.prior) + 2 * ledger_settings(study).tokens
    held += isinstance(config, GRPOConfig) and config.beta > 0
    passed = needs.pass_memory(shape, pass_of(study, lengths, precision.weights))
    return Tracing(needs.FLOAT32 * shape.parameters, needs.FLOAT32 * held * shape.learning, 0, *passed)


def vllm_of(config: TrainerConfig, card: int) -> dict[str, Any]:
    """What vLLM takes of the card that trains."""
    if not isinstance(config, GRPOConfig) or not config.use_vllm or config.vllm_mode == "server":
        return {}
    return {"vllm": int(config.vllm_gpu_memory_utilization * card), "sleeps": config.vllm_enable_sleep_mode}


def _together(study: Study) -> dict[str, Any]:
    """How the ranks of a training hold the model."""
    ranks, sharded = study.compute.gpus, study.compute.strategy != "ddp"
    deepspeed = ranks > 1 and study.compute.strategy == "zero3"
    return {"buckets": ranks > 1 and not sharded, "parts": ranks if sharded else 1, "deepspeed": deepspeed}


def shared(config: TrainerConfig, stage: AnyStage, ranks: int) -> TrainerConfig:
    """The arguments of one of several ranks."""
    own = copy.copy(config)
    for name, value in share(stage, ranks).items() if ranks > 1 else ():
        setattr(own, name, value)
    if isinstance(own, GRPOConfig) and own.generation_batch_size:
        own.generation_batch_size //= ranks
    return own


def precision_of(study: Study, shape: Shape, on_gpu: bool) -> Precision:
    """What learns is in float32 and computes on a GPU in the study's precision, which all beneath an adapter has."""
    half = study.model.dtype in HALVES
    weights = needs.HALF if half and shape.adapter else needs.FLOAT32
    return Precision(weights, needs.HALF if half and on_gpu else weights)


def method_of(config: TrainerConfig, stage: AnyStage, study: Study, shape: Shape) -> Method:
    """What the stage's arguments say, and where they are silent, what training does."""
    checkpointing = config.gradient_checkpointing or (not says_checkpointing(stage) and shape.parameters > LARGE)
    return Method(
        optimizer=str(config.optim).rpartition(".")[2].removesuffix("_fused").removesuffix("_torch"),
        checkpointing=bool(checkpointing),
        reference=isinstance(config, GRPOConfig) and config.beta > 0 and stage.lora is None,
        copies=isinstance(stage, Distill)
        or (isinstance(stage, GRPO) and stage.retains)
        or (stage.kl is not None and (stage.kl.prompts == "prior" or isinstance(stage, SFT))),
        anchors=bool(stage.l2) + 2 * (stage.ewc is not None),
        eager=study.model.attention == "eager",
    )


def batch_of(config: TrainerConfig, lengths: Lengths) -> Batch:
    """The largest batch, of longest samples only."""
    rows = config.per_device_train_batch_size
    if not isinstance(config, GRPOConfig):
        return Batch(rows, lengths.prompt, lengths.completion, lengths.patches)
    at_once = 0 if config.use_vllm else config.generation_batch_size or rows
    return Batch(rows, lengths.prompt, config.max_completion_length or lengths.completion, lengths.patches, at_once)


def asked_of(study: Study, lengths: Lengths) -> Batch:
    """The largest batch of an evaluation."""
    rows, limit = study.evaluation.batch_size, study.evaluation.max_new_tokens
    return Batch(rows, max(lengths.prompt, lengths.read), limit, max(lengths.patches, lengths.seen), rows)


def pass_of(study: Study, lengths: Lengths, size: int) -> Pass:
    """The largest batch that the study's influence reads at once."""
    settings = study.influence or Influence()
    sample = Batch(1, lengths.prompt, lengths.completion, lengths.patches)
    longest = max(sample.tokens, lengths.read)
    most = settings.batch_size * longest
    tokens = max(longest, min(most, settings.batch_tokens or most))
    return Pass(sample, tokens, size, study.model.attention == "eager")


def influence_memory(study: Study, benchmarks: int, adapted: Adapted, lengths: Lengths) -> Tracing:
    """Of the model, what samples are held against, and a pass; other checkpoints wait in the host's memory."""
    settings = study.influence or Influence()
    size = needs.HALF if settings.dtype == "bfloat16" else needs.FLOAT32
    targets = target_count(settings, benchmarks)
    each = COPIES * targets * needs.FLOAT32
    measured, host = adapted.traced.learning, 0
    held = each * measured
    if settings.memory_gb is not None:
        host = min(held, max(int(settings.memory_gb * GB), each * adapted.block))
        measured = host // each
        held = needs.FLOAT32 * min(MOVED_AT_ONCE, targets * adapted.block)
    # A gradient as it is made, and the sum that it is added to, are of the device always.
    held += measured * (size + needs.FLOAT32)
    # All is in one precision, so an adapter casts nothing.
    shape = adapted.traced._replace(adapter=0)
    kept = needs.pass_memory(shape, pass_of(study, lengths, size))
    return Tracing(adapted.shape.parameters * size, held, host, *kept)


def room_there(where: torch.device, ranks: int = 1) -> Room:
    """Of the device that trains and of the host, for one rank."""
    host = psutil.virtual_memory().total // ranks
    if where.type != "cuda":
        return Room(host, None)
    return Room(torch.cuda.get_device_properties(where).total_memory, host)


def require_card(study: Study, where: torch.device) -> None:
    """Refuse a precision that the card computes in software, or not at all.

    Raises:
        UserError: it names the card.
    """
    if where.type == "cuda" and study.model.dtype == "bfloat16" and not torch.cuda.is_bf16_supported(False):
        raise UserError(
            f"model.dtype: {torch.cuda.get_device_name(where)} has no bfloat16; set it to float16, or to float32"
        )


def require_memory(arm: str, need: Need, room: Room) -> list[str]:
    """Refuse what cannot fit whatever the batch, and tell of what probably does not.

    Raises:
        UserError: weights, gradients and optimizer alone take more than there is.
    """
    fixed, there = need.memory.fixed, room.training
    if fixed > there:
        vllm = " and vLLM's share" if need.memory.vllm else ""
        less = "set vllm_enable_sleep_mode, or lower vllm_gpu_memory_utilization, " if need.memory.vllm else ""
        raise UserError(
            f"{arm}: weights, gradients, optimizer and the KL's reference{vllm} take {gb(fixed)} and this "
            f"machine has {gb(there)}; {less}train an adapter (lora), freeze more, take a smaller "
            "model, or several GPUs (compute.gpus, with compute.strategy: fsdp2)"
        )
    told = []
    if need.memory.step > there:
        told = [
            f"{arm}: a step may take {gb(need.memory.step)} and this machine has {gb(there)}; if it fails, lower "
            "per_device_train_batch_size (and raise gradient_accumulation_steps), or model.max_pixels"
        ]
    elif need.memory.total > there:
        told = [
            f"{arm}: to ask validation questions along the way may take {gb(need.memory.total)} and this machine has "
            f"{gb(there)}; if it fails, lower evaluation.batch_size or model.max_pixels"
        ]
    if need.influence is not None:
        told += _require_influence(arm, need.influence, room)
    if need.ledger is not None:
        if need.ledger.fixed > there:
            raise UserError(
                f"influence.ledger: to account for {arm} takes {gb(need.ledger.fixed)} and this machine has "
                f"{gb(there)}; train an adapter (lora), ask fewer prior benchmarks, or leave influence.ledger "
                "out, and every select that chooses by it"
            )
        told += _passes("influence.ledger", arm, need.ledger.total, there)
    return told


def _require_influence(arm: str, need: Tracing, room: Room) -> list[str]:
    fixed, total = need.fixed, need.total
    if room.host is None:
        fixed, total = fixed + need.host, total + need.host
    elif need.host > room.host:
        raise UserError(
            f"influence.memory_gb: what {arm}'s samples are held against takes {gb(need.host)} of the host's memory, "
            f"which has {gb(room.host)} for each GPU; lower it, or name layers (influence.layers)"
        )
    if fixed > room.training:
        raise UserError(
            f"influence: the model and what {arm}'s samples are held against take {gb(fixed)} and this machine has "
            f"{gb(room.training)}; name layers (influence.layers: [layers.] leaves out the table of tokens), or set "
            "influence.memory_gb"
        )
    return _passes("influence", arm, total, room.training)


def _passes(what: str, arm: str, total: int, there: int) -> list[str]:
    """What may not fit with the largest batch."""
    if total <= there:
        return []
    return [
        f"{what}: a batch of {arm}'s samples may take {gb(total)} and this machine has {gb(there)}; lower "
        "influence.batch_tokens (or influence.batch_size), or name later layers (influence.layers)"
    ]
