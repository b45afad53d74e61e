"""Refuse before time is spent what would fail later: the model, every arm's arguments, lengths, memory."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import fnmatch
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers.utils import cached_file
from trl import GRPOConfig

from holdfast.config.jobs import Check
from holdfast.config.methods import GRPO, SFT, AnyStage, Distill
from holdfast.config.refs import DataRef, ModelRef
from holdfast.config.study import Study
from holdfast.data.chat import reads_images
from holdfast.data.shards import Question, prior_shard, read_questions, shard_paths, target_shard
from holdfast.errors import UserError, reason
from holdfast.influence.engine.layers import find_sites
from holdfast.models.base_ref import read_as
from holdfast.models.checkpoint_check import require_finite, stored_weights
from holdfast.models.encode import encode, frames
from holdfast.models.load import auto_class, bound_pixels, device, fitting, load_config, load_processor
from holdfast.models.lora import adapted
from holdfast.models.prompt_check import require_readable
from holdfast.models.text_processor import refusal
from holdfast.models.tiny.shipped import shipped_base
from holdfast.models.vllm_engine import require_engine
from holdfast.stages.accountable import require_rules
from holdfast.stages.asking import require_asking
from holdfast.stages.fit import Adapted, Lengths, need_of, require_card, require_memory, room_there, shape_for
from holdfast.stages.lengths import Longest, check_lengths, learned_shard, named_by, trained_stages
from holdfast.stages.seen import foreign_dialect, shrunk_images
from holdfast.stages.teacher_check import Student, require_family, require_room
from holdfast.stages.vllm_fit import require_evaluation_share, require_share
from holdfast.training.arguments import TrainerConfig, anywhere, share
from holdfast.training.dataset import reward_columns
from holdfast.training.reward_functions import call, loaded
from holdfast.training.sharded import require_shardable
from holdfast.training.zero3 import require_alike


def check(job: Check) -> dict[str, Any]:
    """Check the model and the arms of a study and, with its data, lengths and needs, which it returns.

    Raises:
        UserError: something cannot work. It names the field and the remedy.
    """
    study = job.study
    where = device(study.compute.device)
    require_card(study, where)
    _check_vllm(study)
    processor, model = _skeleton(study, job.settled)
    config = model().config
    if study.model.dtype == "auto":
        saved = str(config.dtype or config.get_text_config().dtype).removeprefix("torch.")
        study = study.model_copy(update={"model": study.model.model_copy(update={"dtype": saved})})
    shapes = {at: _check_stage(at, stage, study, model()) for at, stage in trained_stages(study)}
    student = Student(processor, config, study.evaluation.max_new_tokens)
    for at, stage in trained_stages(study):
        if isinstance(stage, Distill):
            require_family(at, stage, student)
        for name, function in _functions(at, stage):
            loaded(name, function)
    return {} if job.data is None else _checked_with(job.data, study, student, shapes)


def _checked_with(data: DataRef, study: Study, student: Student, shapes: dict[str, Adapted]) -> dict[str, Any]:
    """What only the questions tell."""
    processor, config, where = student.processor, student.config, device(study.compute.device)
    paths = {split: shard_paths(data.path, split) for split in ("train", "validation", "test")}
    shards = {path.name: read_questions(path) for split in paths.values() for path in split}
    _check_halves(study, {path.name: len(shards[path.name]) for path in paths["validation"]})
    _require_text(processor, config, shards)
    for name, questions in shards.items():
        require_readable(processor, config, name, questions)
    _check_functions(study, processor, shards)
    for at, stage in trained_stages(study):
        if isinstance(stage, Distill):
            require_room(at, stage, student, shards[learned_shard(stage, study)])
    _check_alike(study, shards)
    told = [*foreign_dialect(study, processor), *shrunk_images(study, processor, shards)]
    longest, lengths, asked = check_lengths(study, processor, config, shards, told)
    seen = _patches(asked, config, processor)
    room = room_there(where, study.compute.gpus)
    card = room.training if where.type == "cuda" else 0
    for at, stage in trained_stages(study):
        require_share(at, stage, study, shapes[at].shape, card)
        require_evaluation_share(study, shapes[at].shape, card)
    needed = {
        at: need_of(
            stage,
            study,
            shapes[at],
            _largest(lengths[at], config, processor, shards[learned_shard(stage, study)])._replace(
                read=longest["longest_prompt"] + longest["longest_answer"], seen=seen
            ),
            card,
        )
        for at, stage in trained_stages(study)
    }
    told += [line for at, need in needed.items() for line in require_memory(at, need, room)]
    asking = max((need.asking for need in needed.values()), key=lambda one: one.total, default=None)
    told += require_asking(study, asking, room.training) if asking is not None else []
    return {
        **longest,
        "needs": {at: need.noted() for at, need in needed.items()},
        "memory_there": room.training,
        "told": told,
    }


def _check_vllm(study: Study) -> None:
    """Whether evaluations can be decoded by vLLM, if they are to be."""
    settings = study.evaluation.vllm
    if settings is None:
        return
    if study.compute.gpus > 1:
        raise UserError(
            f"evaluation.vllm: works on one GPU, and compute.gpus is {study.compute.gpus}; leave one of them out"
        )
    require_engine("evaluation.vllm")
    from vllm import EngineArgs

    known = [field.name for field in dataclasses.fields(EngineArgs)]
    for name in settings.arguments:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else "see the fields of vLLM's EngineArgs."
            raise UserError(f"evaluation.vllm.arguments.{name} is no argument of vLLM's; {hint}")


def _skeleton(study: Study, settled: bool) -> tuple[Any, Any]:
    """The study's processor, and a function that makes its model without weights."""
    if study.model.is_built:
        from holdfast.models.tiny.build import build_model
        from holdfast.models.tiny.processor import build_processor

        processor = build_processor()
        bound_pixels(processor, read_as(study.model, ModelRef(path="bundled", digest="")))
        return processor, lambda: _without_weights(build_model, processor)
    bundled = study.model.path == "bundled"
    ref = shipped_base() if bundled else ModelRef(path=study.model.path, digest="", revision=study.model.revision)
    ref = read_as(study.model, ref)
    config = load_config(ref)
    processor = load_processor(ref)
    try:
        fitting(ref, "auto", device_map={"": "meta"})
    except UserError:
        raise
    except Exception as error:  # whatever a user's configuration makes of an architecture
        raise UserError(
            f"model.path: no model can be made of {ref.path} ({reason(error)}); correct its config.json"
        ) from error
    if not settled:
        place = Path(cached_file(ref.path, "config.json", revision=ref.revision) or "").parent
        require_finite(ref.path, stored_weights(place))
    return processor, lambda: _without_weights(auto_class(config).from_config, config)


def _without_weights(make: Any, argument: Any) -> Any:
    with torch.device("meta"):
        return make(argument)


def _require_text(processor: Any, config: Any, shards: dict[str, list[Question]]) -> None:
    """A model of text is asked about no images."""
    if reads_images(processor):
        return
    for name, questions in shards.items():
        if any(question.images for question in questions):
            role = "target" if name.startswith("target") else "prior"
            raise refusal(f"{role}: {questions[0].benchmark}", config.model_type)


def _largest(longest: tuple[Longest, Longest], config: Any, processor: Any, questions: list[Question]) -> Lengths:
    """A training's longest sample, with the patches that the tower sees of its images."""
    prompt, completion = longest
    return Lengths(prompt.tokens, completion.tokens, _patches(named_by(prompt, questions), config, processor))


def _patches(question: Question, config: Any, processor: Any) -> int:
    """Of a question's images, as the tower sees them."""
    [row] = encode(processor, [question])
    grids = row.get("image_grid_thw")
    if grids is not None:
        return int(grids.prod(-1).sum())
    tower = getattr(config, "vision_config", None)
    sides = [getattr(tower, name, 0) for name in ("image_size", "patch_size")]
    across = [side[0] if isinstance(side, list | tuple) else side for side in sides]
    patches = (across[0] // across[1]) ** 2 if all(across) else 0
    return frames(row) * patches


def _check_stage(where: str, stage: AnyStage, study: Study, model: Any) -> Adapted:
    """What TRL, peft and influence refuse, before a model is loaded."""
    try:
        config = anywhere(stage, study.evaluation.max_new_tokens)
        share(stage, study.compute.gpus)
        if isinstance(config, GRPOConfig) and config.use_vllm and config.vllm_mode != "server":
            require_engine("trainer.use_vllm")
        model = adapted(model, stage, study.seed)
        found = shape_for(model, study.influence)
        if study.influence is not None or (isinstance(stage, SFT) and stage.select is not None):
            find_sites(model)
    except UserError as error:
        raise UserError(f"{where}.{error}") from error
    except ValueError as error:
        raise UserError(f"{where}.lora: {error}") from error
    if study.compute.strategy != "ddp" and study.compute.gpus > 1:
        require_shardable(study.compute.strategy, study.model.dtype, stage, model)
    _check_ledger(where, stage, study, config, model)
    if isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise UserError(
            f"{where}.lora: TRL cannot train an adapter on the output layer; leave it out of target_modules"
        )
    if config.per_device_train_batch_size < 1 or config.gradient_accumulation_steps < 1:
        raise UserError(
            f"{where}.trainer: per_device_train_batch_size and gradient_accumulation_steps must be positive"
        )
    return found


def _check_ledger(where: str, stage: AnyStage, study: Study, config: TrainerConfig, model: Any) -> None:
    """Whether rules cover all that moves the weights, where a ledger is to account for it."""
    if not study.accounted(where.split(".")[1]):
        return
    config = copy.copy(config)
    config.fp16 = study.model.dtype == "float16" and device(study.compute.device).type == "cuda"
    try:
        require_rules(stage, config, model)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _check_functions(study: Study, processor: Any, shards: dict[str, list[Question]]) -> None:
    """Try the user's own reward functions on a right and on an empty completion of two training questions."""
    for where, stage in trained_stages(study):
        questions = shards[learned_shard(stage, study)][:2]
        written = [(question, text) for question in questions for text in (question.reference, "")]
        for name, function in _functions(where, stage):
            columns = reward_columns(written, processor, step=0)
            call(name, loaded(name, function), columns.pop("completions"), columns)


def _check_alike(study: Study, shards: dict[str, list[Question]]) -> None:
    """Whether all processes can take the same way through the model, with what a stage learns and what it replays."""
    if study.compute.gpus == 1 or study.compute.strategy != "zero3":
        return
    for where, stage in trained_stages(study):
        _, arm, number = where.split(".")
        old = stage.replay.of if stage.replay is not None and stage.replay.share else ()
        names = [learned_shard(stage, study)]
        names += fnmatch.filter(shards, prior_shard("*", "train")) if "prior" in old else []
        names += [target_shard("train", one) for one in study.earlier(arm, int(number))] if "targets" in old else []
        try:
            require_alike(question for name in names for question in shards[name])
        except UserError as error:
            raise UserError(f"{where}: {error}") from error


def _functions(where: str, stage: AnyStage) -> Iterator[tuple[str, str]]:
    """The user's own reward functions, and what an error calls them."""
    for name, term in stage.rewards.items() if isinstance(stage, GRPO) else ():
        if term.kind == "function":
            yield f"{where}.rewards.{name}.function: {term.function}", term.function


def _check_halves(study: Study, validation: dict[str, int]) -> None:
    """Influence takes two disjoint halves of every benchmark's validation questions."""
    selected = any(isinstance(stage, SFT) and stage.select is not None for _, stage in trained_stages(study))
    few = [name for name, questions in validation.items() if questions < 2]
    if few and (selected or study.influence is not None):
        raise UserError(
            f"{'select' if selected else 'influence'}: {few[0]} holds {validation[few[0]]} question(s), too few for "
            f"two halves; raise `validation` of that benchmark to 2 at least"
        )
