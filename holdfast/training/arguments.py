"""TRL's arguments: what the user names passes through, what holdfast answers for is refused, the rest has defaults."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Collection
from pathlib import Path
from tempfile import gettempdir
from typing import Any, NamedTuple

from transformers import TrainingArguments
from trl import GRPOConfig, SFTConfig

from holdfast.config.methods import GRPO, AnyStage
from holdfast.errors import UserError
from holdfast.models.vllm_engine import require_vllm

TrainerConfig = SFTConfig | GRPOConfig

FEWEST = 2
"""Samples of a prompt that TRL needs."""
BATCH, PASSES, REUSED = "per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation"
OURS = {
    "output_dir": "the stage has a directory of its own",
    "seed": "set the study's seed",
    "data_seed": "set the study's seed",
    "full_determinism": "the study is deterministic",
    "report_to": "metrics go to MLflow",
    "run_name": "the arm's name is used",
    "disable_tqdm": "progress is shown by holdfast",
    "save_strategy": "set evaluation.keep",
    "save_steps": "set evaluation.keep",
    "save_total_limit": "set evaluation.keep",
    "save_only_model": "resuming needs the optimizer",
    "load_best_model_at_end": "every checkpoint is kept",
    "eval_strategy": "set evaluation.keep",
    "eval_steps": "set evaluation.keep",
    "eval_on_start": "the base is evaluated on its own",
    "do_eval": "set evaluation.keep",
    "use_cpu": "set compute.device",
    "bf16": "set model.dtype",
    "fp16": "set model.dtype",
    "model_init_kwargs": "set model.dtype",
    "resume_from_checkpoint": "run the same command again to resume",
    "ignore_data_skip": "a resumed training must not see data twice",
    "remove_unused_columns": "rewards read the columns",
    "train_sampling_strategy": "the study's seed orders the data",
    "shuffle_dataset": "the study's seed orders the data",
    "dataset_kwargs": "the data is made by the study",
    "completion_only_loss": "only completions are learned from",
    "assistant_only_loss": "only completions are learned from",
    "chat_template_path": "training, evaluation and influence read the checkpoint's own template",
    "chat_template_kwargs": "training, evaluation and influence read the checkpoint's own template",
    "eos_token": "a completion ends where the checkpoint's generation stops",
    "pad_token": "the checkpoint's own is used",
    "pad_to_multiple_of": "batches are as wide as their longest row",
    "packing": "image data cannot be packed",
    "padding_free": "image data cannot be packed",
    "reward_weights": "set rewards",
    "push_to_hub": "checkpoints stay with the study",
    "auto_find_batch_size": "it would change the training while it runs",
}
"""Arguments that a study may not set, and what to do instead."""


def trainer_config(stage: AnyStage, limit: int, settings: dict[str, Any]) -> TrainerConfig:
    """TRL's config of a stage; `settings` are the arguments that depend on the machine and the job.

    Raises:
        UserError: an argument is unknown, belongs to holdfast, or TRL refuses it. It names `trainer.<argument>`.
    """
    kind = SFTConfig if stage.method == "sft" else GRPOConfig
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for name in stage.trainer:
        _check_name(name, list(fields), kind.__name__)
    given = {name: _value(name, value, fields[name].type) for name, value in stage.trainer.items()}
    if stage.method == "grpo":
        _check_aggregation(stage)
        _check_vllm(given)
    if stage.method == "distill":
        _check_distilled(stage.trainer)
    settings = {**_defaults(stage, limit), **given, **_ours(stage), **settings}
    try:
        return kind(**settings)
    except (TypeError, ValueError) as error:
        remedy = "; make per_device_train_batch_size × gradient_accumulation_steps a multiple of num_generations"
        divides = "divisible by num_generations" in str(error)
        refused = f"trainer: TRL's {kind.__name__} refuses these arguments: {str(error).rstrip('.')}"
        raise UserError(refused + (remedy if divides else "")) from error


def share(stage: AnyStage, ranks: int) -> dict[str, int]:
    """TRL's arguments of each of several ranks, so that a step's batch and a generation's are those of one process.

    The ranks take passes of a step at the same time, and where there are not enough of these, share each.

    Raises:
        UserError: the rows cannot be shared evenly. It names `trainer`.
    """
    if ranks == 1:
        return {}
    if stage.trainer.get("use_vllm"):
        raise UserError(f"trainer.use_vllm: works on one GPU, and compute.gpus is {ranks}; leave one of them out")
    fields = SFTConfig.__dataclass_fields__ if stage.method == "sft" else GRPOConfig.__dataclass_fields__
    given = {name: stage.trainer.get(name, fields[name].default) for name in (BATCH, PASSES)}
    batch, passes = given[BATCH], given[PASSES]
    generated = stage.trainer.get("generation_batch_size")
    reused = generated // batch if generated else stage.trainer.get(REUSED)
    at_once = math.gcd(ranks, passes, *([reused] if reused else []))
    rows, left = divmod(batch, ranks // at_once)
    if left:
        raise UserError(
            f"trainer: compute.gpus {ranks} cannot share {BATCH} {batch} × {PASSES} {passes} evenly; these are of all "
            f"GPUs together, so make one of them a multiple of {ranks}, or lower compute.gpus"
        )
    own = {BATCH: rows, PASSES: passes // at_once}
    return own | ({REUSED: reused // at_once} if reused and not generated else {})


def anywhere(stage: AnyStage, limit: int) -> TrainerConfig:
    """TRL's config of a stage with all of its defaults, whatever the machine. Raises as `trainer_config`."""
    unused = str(Path(gettempdir()) / "unused")
    return trainer_config(stage, limit, {"output_dir": unused, "use_cpu": True, "bf16": False, "fp16": False})


SAMPLED = ("top_p", "top_k", "min_p", "repetition_penalty")


def sampling_settings(config: GRPOConfig) -> dict[str, Any]:
    """What rollouts are sampled with beside the temperature, under transformers' names.

    vLLM has other names for what `generation_kwargs` may hold, so with it these are left out.
    """
    given: Any = config.generation_kwargs or {}
    named = {name: getattr(config, name) for name in SAMPLED}
    return {**named, **({} if config.use_vllm else given)}


def _check_name(name: str, known: list[str], kind: str) -> None:
    if name in OURS or name.startswith("hub_"):
        raise UserError(f"trainer.{name} is set by holdfast ({OURS.get(name, OURS['push_to_hub'])}); remove it")
    if name not in known:
        close = difflib.get_close_matches(name, [other for other in known if other not in OURS], 1)
        hint = f"did you mean {close[0]}?" if close else "see TRL's documentation for its arguments."
        raise UserError(f"trainer.{name} is no argument of TRL's {kind}; {hint}")


CHECKPOINTING = ("activation_checkpointing", "gradient_checkpointing")
"""transformers' name of it and the older one, which it reads only when arguments are made."""


def set_checkpointing(config: TrainerConfig, on: bool) -> None:
    """Compute a layer's activations again in the backward pass, or keep them."""
    for name in CHECKPOINTING:
        if hasattr(config, name):
            setattr(config, name, on)


def says_checkpointing(stage: AnyStage) -> bool:
    """Whether the stage itself says whether activations are kept."""
    return any(name in stage.trainer for name in CHECKPOINTING)


VLLM_MODES = ("colocate", "server")
SERVERS_OWN = {
    "vllm_enable_sleep_mode": "a card of its own instead",
    "vllm_gpu_memory_utilization": "--gpu-memory-utilization",
    "vllm_max_model_length": "--max-model-len",
    "vllm_model_impl": "--model-impl",
    "vllm_tensor_parallel_size": "--tensor-parallel-size",
}
"""What a server is started with, by TRL's name for an engine in the training's process."""


def _check_vllm(given: dict[str, Any]) -> None:
    """vLLM is here if it is asked for, and not without its check."""
    if not given.get("use_vllm"):
        return
    if given.get("vllm_mode", "colocate") not in VLLM_MODES:
        raise UserError(f"trainer.vllm_mode: {given['vllm_mode']} is unknown; use one of {', '.join(VLLM_MODES)}")
    if given.get("vllm_mode") == "server":
        for name, option in SERVERS_OWN.items():
            if name in given:
                raise UserError(f"trainer.{name} is for vLLM in the training's process; give the server {option}")
    require_vllm("trainer.use_vllm")
    if not given.get("vllm_importance_sampling_correction", True):
        raise UserError(
            "trainer.vllm_importance_sampling_correction: without it nobody sees how far vLLM's probabilities are from "
            "the trainer's; remove it"
        )


AGGREGATIONS = ("sum_then_normalize", "normalize_then_sum")


def _check_aggregation(stage: GRPO) -> None:
    """TRL refuses an unknown one in its first step only."""
    given = stage.trainer.get("multi_objective_aggregation", AGGREGATIONS[0])
    if given not in AGGREGATIONS:
        raise UserError(
            f"trainer.multi_objective_aggregation: {given} is unknown; use one of {', '.join(AGGREGATIONS)}"
        )
    warming = [name for name, term in stage.rewards.items() if term.warm_up]
    if warming and given == "normalize_then_sum":
        raise UserError(
            f"rewards.{warming[0]}.warm_up: normalize_then_sum divides every term by its spread, so a warm-up changes "
            "nothing; leave it out or use sum_then_normalize"
        )


DISTILLED = (
    "num_generations",
    "max_completion_length",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "generation_kwargs",
    "generation_batch_size",
    "steps_per_generation",
    "num_iterations",
)
"""GRPOConfig's own arguments that say how to sample."""


def _check_distilled(given: Collection[str]) -> None:
    """Refuse what only rewards have a use for."""
    general = {field.name for field in dataclasses.fields(TrainingArguments)}
    for name in given:
        if name not in general and name not in DISTILLED:
            raise UserError(f"trainer.{name}: has no part in distill, which learns from a teacher; leave it out")


def _value(name: str, value: Any, wanted: Any) -> Any:
    """A value of the field's type; YAML reads 1e-4 as text."""
    kind = wanted if isinstance(wanted, str) else getattr(wanted, "__name__", str(wanted))
    if kind in ("int", "bool") and (isinstance(value, bool) != (kind == "bool") or not isinstance(value, int)):
        raise UserError(f"trainer.{name}: `{value}` is no {'number' if kind == 'int' else 'true or false'}; write one")
    if isinstance(value, str) and "bool" in kind and "str" not in kind:
        raise UserError(f"trainer.{name}: `{value}` is text; write true or false")
    if not isinstance(value, str) or "float" not in kind:
        return value
    try:
        return float(value)
    except ValueError:
        if "str" in kind:
            return value
        raise UserError(f"trainer.{name}: `{value}` is no number; write one such as 1.0e-4") from None


def _defaults(stage: AnyStage, limit: int) -> dict[str, Any]:
    """Beneath what the user names."""
    shared = {"gradient_checkpointing": False, "logging_steps": 0.02, "logging_nan_inf_filter": False}
    if stage.method == "sft":
        return {**shared, "max_length": None}
    samples = {"num_generations": FEWEST} if stage.method == "distill" else {}
    return {**shared, "max_completion_length": limit, **samples}


def _ours(stage: AnyStage) -> dict[str, Any]:
    """Above what the user names. Checkpoints are asked for by a callback, at the steps that are evaluated."""
    shared = {
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "save_total_limit": 2,
        "eval_strategy": "no",
        "remove_unused_columns": False,
        "shuffle_dataset": False,
    }
    if stage.method == "sft":
        # Batches come ready from training/supervised.py.
        return {
            **shared,
            "train_sampling_strategy": "sequential",
            "dataset_kwargs": {"skip_prepare_dataset": True},
        }
    if stage.method == "distill":
        return shared
    distance = {"beta": stage.kl.weight} if stage.kl is not None and stage.kl.prompts == "target" else {}
    return {**shared, **distance, "reward_weights": [term.weight for term in stage.rewards.values()]}


class Length(NamedTuple):
    """How long a training is: optimizer steps, rows of data that they take, and steps between two generations."""

    steps: int
    rows: int
    period: int
    """A training can be resumed after a multiple of so many steps: in between, GRPO reuses what it generated."""


def length(config: TrainerConfig, available: int) -> Length:
    """From max_steps, or else from num_train_epochs over the available rows."""
    accumulation = config.gradient_accumulation_steps
    batch = config.per_device_train_batch_size * config.world_size
    if isinstance(config, SFTConfig):
        steps = config.max_steps
        if steps <= 0:
            steps = max(1, math.ceil(config.num_train_epochs * available / (batch * accumulation)))
        return Length(steps, steps * batch * accumulation, 1)
    reused: Any = config.steps_per_generation
    generated: Any = config.generation_batch_size
    uses = reused * config.num_iterations
    prompts = generated // config.num_generations
    steps = config.max_steps
    if steps <= 0:
        steps = max(1, math.ceil(config.num_train_epochs * available / prompts * uses / accumulation))
    generations = math.ceil(steps * accumulation / uses)
    return Length(steps, generations * prompts, math.lcm(accumulation, uses) // accumulation)
