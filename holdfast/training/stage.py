"""One stage of one arm: load, adapt, train with TRL, measure along the way, resume where it was interrupted."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer, SFTTrainer

from holdfast import group
from holdfast.config.jobs import Train
from holdfast.config.methods import GRPO, AnyStage
from holdfast.config.refs import ModelRef
from holdfast.config.schedule import scheduled
from holdfast.data.training_set import replay_rows, train_rows
from holdfast.journal import Journal
from holdfast.models.image_feature_cache import cached_image_features
from holdfast.models.load import device, load_model, load_processor
from holdfast.models.lora import adapted
from holdfast.models.precision import HALF, learn_in_float32, study_dtype, weight_dtype
from holdfast.training import fsdp2, zero3
from holdfast.training.alarms import Alarms
from holdfast.training.arguments import length, says_checkpointing, set_checkpointing, share, trainer_config
from holdfast.training.callback import Measure, StageCallback
from holdfast.training.completions import CompletionLog
from holdfast.training.dataset import with_old
from holdfast.training.distillation import DistillationTrainer, taught
from holdfast.training.frozen_base import unchanged
from holdfast.training.grpo import grpo_trainer, prompt_dataset, refer_to
from holdfast.training.non_finite import SAMPLING
from holdfast.training.penalties import add_penalties
from holdfast.training.prompt_sharing_trainer import PromptSharingTrainer
from holdfast.training.resume import last_intact, ready_for, step_of
from holdfast.training.retention import LogRatios
from holdfast.training.rewards import Reward, Rewards, token_counter, unpaid
from holdfast.training.sft import sft_trainer
from holdfast.training.sharded import sharding, strategy_of, take_over, whole_model
from holdfast.training.token_weights import talr_loss
from holdfast.training.vllm_rollouts import engine, rolling_out_by

LARGE = 1_000_000_000
"""Parameters beyond which activations are computed again for their gradients, unless the user says otherwise."""


Alongside = Callable[[SFTTrainer | GRPOTrainer, Mapping[str, str], int], None]
"""Watches a training, from its beginning or from so many steps on where it was interrupted; the mapping will have the
digests of what is kept, by path."""


def train(
    job: Train, out: Path, journal: Journal, measure: Measure, alongside: Alongside | None = None
) -> dict[str, Any]:
    """Run or resume a stage; leaves checkpoints/ and, for GRPO, completions.parquet. Returns notes.

    Raises:
        UserError: the loss stays without a finite value, weights or logits have none, or vLLM changed the base.
    """
    processor = load_processor(job.start)
    callback = StageCallback(out, journal, measure, processor)
    callback.moments = job.keep_moments
    callback.dtype = HALF.get(job.keep_dtype)
    trainer = build(job, processor, out, callback)
    model: Any = trainer.model
    strategy = strategy_of(trainer.args)
    found = group.of_the_first(lambda: ready_for(last_intact(out), group.size(), strategy))
    if found is not None:
        callback.go_on_from(found)
        if strategy == "ddp":
            restore(model, found, job)
    resumed_at = step_of(found) if found else 0
    if alongside is not None:
        alongside(trainer, callback.kept, resumed_at)
    callback.remove_unkept()
    try:
        # With ZeRO-3 every process has to call the tower.
        seen = nullcontext() if strategy == "zero3" else cached_image_features(model, {})
        with seen, unchanged(model, job.stage, out / "trainer"):
            trainer.train(resume_from_checkpoint=str(found) if found else None)
    except RuntimeError as error:
        if SAMPLING not in str(error):
            raise
        raise callback.non_finite.failure("it cannot sample, since its logits are not finite") from error
    group.wait_for_all()
    shutil.rmtree(out / "trainer", ignore_errors=True)
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    counted = {"non_finite_steps": callback.non_finite.steps} if callback.non_finite.steps else {}
    return {"resumed_at": resumed_at, "seconds": callback.seconds, "learning_parameters": learning, **counted}


def build(job: Train, processor: Any, out: Path, callback: StageCallback) -> SFTTrainer | GRPOTrainer:
    """The trainer of a stage, with the callback watching."""
    where = device(job.device)
    config = trainer_config(job.stage, job.limit, machine_settings(job, where, out))
    rows = train_rows(job)
    whole = length(config, len(rows))
    config.max_steps = whole.steps
    old = replay_rows(job)
    share = job.stage.replay.share if job.stage.replay is not None else 0.0
    places = with_old((len(rows), len(old)), whole.rows, share, job.seed)
    rows += old
    strategy = strategy_of(config)
    if strategy == "zero3":
        zero3.require_alike(row.question for row in rows)
        zero3.load_whole()
    model = learner(job, where)
    if not says_checkpointing(job.stage):
        set_checkpointing(config, model.num_parameters() > LARGE)
    if strategy == "fsdp2":
        fsdp2.prepare(config, model)
    if strategy != "ddp":
        callback.whole = lambda sharded: whole_model(sharded, job)
        callback.placed = lambda copy: copy.to(where, HALF.get(study_dtype(job), torch.float32))
    trainer: SFTTrainer | GRPOTrainer
    if isinstance(config, GRPOConfig):
        rewards = watched_rewards(job.stage, config.num_generations or 1, processor, callback)
        kind = DistillationTrainer if job.stage.method == "distill" else PromptSharingTrainer
        prompts = prompt_dataset(processor, rows, places)
        with rolling_out_by(engine(job, processor, _computes_in(config, model))):
            trainer = grpo_trainer(kind, model, processor, config, (prompts, rewards))
        take_over(trainer, job.start)
        if isinstance(trainer, DistillationTrainer):
            taught(trainer, job, processor, rows)
        if isinstance(job.stage, GRPO):
            trainer.rollout_difference = job.stage.rollout_difference
            if job.stage.retains and callback.rewards is not None:
                callback.rewards.log_ratios = LogRatios(trainer, job, processor, rows)
        if job.stage.kl is not None and job.stage.kl.prompts == "target" and job.stage.kl.to == "base":
            refer_to(trainer, load_model(job.base, weight_dtype(job)))
    else:
        trainer = sft_trainer(model, processor, config, rows, places)
        take_over(trainer, job.start)
        if job.stage.method == "sft" and job.stage.talr is not None:
            trainer.compute_loss_func = talr_loss(job.stage.talr.tau)
    add_penalties(trainer, job, processor)
    callback.non_finite.watch(trainer)
    callback.steps = scheduled(job.keep, whole.steps, whole.period)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(callback)
    return trainer


def learner(job: Train, where: torch.device) -> Any:
    """The stage's first model, with what learns marked."""
    return learn_in_float32(adapted(load_model(job.start, weight_dtype(job), where), job.stage, job.seed, job.start))


def _computes_in(config: GRPOConfig, model: Any) -> str:
    if config.bf16 or config.fp16:
        return "bfloat16" if config.bf16 else "float16"
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def watched_rewards(stage: AnyStage, rollouts: int, processor: Any, callback: StageCallback) -> dict[str, Reward]:
    """A function a term for TRL, which the callback remembers; of several processes, the first gives the rewards.

    What is distilled is graded by GRPO's usual terms.
    """
    terms = (stage if isinstance(stage, GRPO) else GRPO(method="grpo")).rewards
    callback.rewards = Rewards(terms, rollouts, token_counter(processor.tokenizer))
    callback.alarms = Alarms(terms)
    callback.log = log = CompletionLog(callback.out / "completions.parquet", rollouts)
    if group.number():
        return {name: unpaid(name) for name in terms}
    return {name: log.watched(name, reward) for name, reward in callback.rewards.functions().items()}


def machine_settings(job: Train, where: torch.device, out: Path) -> dict[str, Any]:
    """Mixed precision on a GPU only; TRL would else choose bfloat16 everywhere."""
    half = study_dtype(job) if where.type == "cuda" else None
    return {
        "output_dir": str(out / "trainer"),
        "seed": job.seed,
        "use_cpu": where.type == "cpu",
        "bf16": half == "bfloat16",
        "fp16": half == "float16",
        **share(job.stage, group.size()),
        **(sharding(job.strategy) if group.size() > 1 else {}),
    }


def restore(model: Any, checkpoint: Path, job: Train) -> None:
    """Give the model the checkpoint's weights.

    On resuming, transformers matches them by name with the modules in memory; Qwen2.5-VL's are saved under other names,
    so it would go on with the stage's first weights and say no more than that keys are missing. Adapters it does load.
    """
    if job.stage.lora is None:
        saved = load_model(ModelRef(path=str(checkpoint), digest=""), weight_dtype(job))
        model.load_state_dict(saved.state_dict())
