"""About how long a whole study takes at most, by what was tried of it: with answers as long as their limit,
or, where vLLM writes them, as the base's to the longest questions."""

from __future__ import annotations

from typing import Any, NamedTuple

from flows.estimate import accounting, tracing
from flows.jobs import sampled_source
from flows.preflight import Preflight
from holdfast.config.methods import AnyStage, Interpolate, SelfReasoning, TeacherFile
from holdfast.config.schedule import chosen, scheduled
from holdfast.config.study import Study

AGAIN = 3
"""Times that the base is asked beside the first: once more, in batches of a third."""


class Times(NamedTuple):
    """Seconds of stages by their kind."""

    training: float = 0.0
    sampling: float = 0.0
    evaluation: float = 0.0
    """With what trainings ask along the way."""
    influence: float = 0.0
    """With ledgers and predictors."""


class Paces(NamedTuple):
    """Seconds of a question that is asked, of a completion, and of one that is held against the base."""

    question: float
    completion: float
    comparison: float


class Tried(NamedTuple):
    """A stage, and what its trial found."""

    stage: AnyStage
    steps: int
    found: dict[str, Any]
    accounted: bool
    """Its arm has a ledger."""


def paces(tried: dict[str, Any], gpus: int) -> Paces:
    """By the trial of an evaluation, of questions that several GPUs share, answered by vLLM where the study asks so."""
    reading, writing = (tried[f"seconds_{name}"] / tried["questions"] / gpus for name in ("reading", "writing"))
    return Paces(reading + writing, writing, tried["seconds_comparing"] / max(1, tried["prompts"]) / gpus)


def alone(tried: dict[str, Any]) -> Paces:
    """Of questions that one process answers by transformers, as of trainings along the way and of influence."""
    return paces(tried | tried.get("along", {}), 1)


def study_times(study: Study, found: Preflight) -> dict[str, Times] | None:
    """Of one replicate by stage, and of the base's evaluation; None where a trial is missing or did not fit."""
    asked = found.evaluation
    stages = {where: _tried(study, found, where) for where in found.checked["needs"]}
    if "questions" not in asked or any("seconds_a_step" not in one.found for one in stages.values()):
        return None
    pace, own_pace = paces(asked, study.compute.gpus), alone(asked)
    checkpoint = _checkpoint(study, pace, asked["asked"])
    times = {"base": Times(evaluation=checkpoint + _base(study, pace, asked["asked"]))}
    for where, one in stages.items():
        kept = scheduled(study.evaluation.keep, one.steps)
        visits = len(chosen(study.evaluation.every, kept))
        times[where] = Times(
            training=_training(one),
            sampling=_completions(study, one.stage) * pace.completion,
            evaluation=visits * checkpoint + len(kept) * asked["validated"] * own_pace.question,
            influence=_influence(study, one, own_pace) + _predictors(study, visits, pace),
        )
    for arm, [blend, *_] in study.arms.items():
        if isinstance(blend, Interpolate):
            evaluation, predictors = len(blend.shares) * checkpoint, _predictors(study, len(blend.shares), pace)
            times[f"arms.{arm}.0"] = Times(evaluation=evaluation, influence=predictors)
    return times


def _tried(study: Study, found: Preflight, where: str) -> Tried:
    _, arm, number = where.split(".")
    steps = found.checked["needs"][where]["steps"]
    return Tried(study.trained[arm][int(number)], steps, found.trials.get(where, {}), study.accounted(arm))


def _training(one: Tried) -> float:
    return one.steps * one.found["seconds_a_step"]


def _checkpoint(study: Study, pace: Paces, asked: int) -> float:
    """All benchmarks, the drift, and samples for pass@k."""
    settings, [target, *_] = study.evaluation, study.all_targets.values()
    drawn = target.test * max(settings.pass_at, default=0)
    return asked * pace.question + settings.drift_prompts * pace.comparison + drawn * pace.completion


def _base(study: Study, pace: Paces, asked: int) -> float:
    """More than of a checkpoint: the samples that drift is measured on, written and read, and all benchmarks again."""
    again = AGAIN * asked * pace.question if study.evaluation.vllm is None else 0.0
    return study.evaluation.drift_prompts * (pace.completion + pace.comparison) + again


def _completions(study: Study, stage: AnyStage) -> int:
    """That are sampled before a stage can learn."""
    source, replay, train = sampled_source(stage), stage.replay, study.target_of(stage).train
    old = 0
    if replay is not None and replay.answers == "own":
        benchmarks = len(study.prior) * ("prior" in replay.of) + len(study.targets) * ("targets" in replay.of)
        old = replay.questions * benchmarks
    if source is None or isinstance(source, TeacherFile):
        return old
    return old + (train if isinstance(source, SelfReasoning) else (source.prompts or train) * source.per_prompt)


def _influence(study: Study, one: Tried, pace: Paces) -> float:
    """And the ledger; an influence that was not tried takes nothing."""
    seconds = accounting(study, one.stage, _training(one)) if one.accounted else 0.0
    tried = one.found.get("influence", {})
    if study.influence is None or "seconds_samples" not in tried:
        return seconds
    if one.stage.method != "sft":
        visits = 1 + len(chosen(study.influence.every, scheduled(study.evaluation.keep, one.steps)))
        seconds += visits * study.influence.samples * pace.completion
    return seconds + tracing(study, one.steps, tried)


def _predictors(study: Study, visits: int, pace: Paces) -> float:
    """Of prompts of targets and of the prior: what the base writes, and every checkpoint, and both held together."""
    prompts = 2 * study.predictors.prompts if study.predictors is not None else 0
    return prompts * ((1 + visits) * pace.completion + 2 * visits * pace.comparison)
