"""What a preflight found, in lines for a person."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.commands.plan import rough_time, stages_at_once
from flows.estimate import accounting, tracing
from flows.hours import Times, paces, study_times
from flows.preflight import Preflight
from holdfast.config.methods import SFT
from holdfast.config.study import Study

GB = 1e9
PARTS = (
    "weights",
    "gradients",
    "optimizer",
    "copies",
    "reference",
    "activations",
    "head",
    "generation",
    "vllm",
    "measuring",
)
"""Of a training's memory."""


def lines(study: Study, found: Preflight, root: Path) -> Iterator[str]:
    """Prompts, a block for every stage, and the sums over replicates: disk against what is free, and time."""
    notes = found.checked
    yield f"Longest prompt: {notes['longest_prompt']:,} tokens, images included; answer: {notes['longest_answer']:,}."
    for where, need in notes["needs"].items():
        yield f"{where}:"
        tried = found.trials.get(where, {})
        yield from (f"  {line}" for line in _stage(need, notes["memory_there"], tried))
        yield from (f"  {line}" for line in _traced(study, where, need, tried.get("influence", {})))
        if need["ledger"]:
            yield f"  ledger: {_gb(need['ledger']['total'])}{_accounting(study, where, need, tried)}"
    yield from _evaluated(study, found)
    yield from (f"! {line}" for line in notes.get("told", []))
    disks = [need["disk"] for need in notes["needs"].values()]
    wanted = study.replicates * sum(disk["kept"] for disk in disks) + max(disk["running"] for disk in disks)
    free = shutil.disk_usage(root).free
    less = ""
    if wanted > free:
        less = "; keep fewer (evaluation.keep), in half precision (evaluation.keep_dtype: bfloat16), or train adapters"
    yield f"Disk: {_gb(wanted)} for all replicates, {_gb(free)} free{less}."
    yield f"Time: {_hours(study, found)}."


def _stage(need: dict[str, Any], there: int, tried: dict[str, Any]) -> Iterator[str]:
    shape, memory, disk = need["shape"], need["memory"], need["disk"]
    yield f"{shape['parameters']:,} parameters, {shape['learning']:,} of them learn"
    parts = ", ".join(f"{name} {_gb(memory[name])}" for name in PARTS if memory[name] > memory["total"] / 100)
    yield f"memory: {_gb(memory['total'])} of {_gb(there)} by arithmetic ({parts})"
    if need["influence"]:
        traced = need["influence"]
        beside = f", and {_gb(traced['host'])} of the host's memory" if traced["host"] else ""
        batch = _gb(traced["activations"] + traced["head"])
        yield f"influence: {_gb(traced['total'])}, {batch} of it for a batch{beside}"
    yield f"disk: {_gb(disk['kept'])} kept, {_gb(disk['running'])} more while it runs"
    yield f"{need['steps']:,} steps of {need['operations'] / 1e12:,.3g} TFLOP, generation apart"
    if "failed" in tried:
        yield f"tried: {tried['failed']}"
    elif tried:
        yield f"tried: {tried['seconds_a_step']:.2f} s a step, at most {_gb(tried['peak'])}"
    if "groups" in tried:
        yield (
            f"of {tried['groups']} groups of the base's rollouts, {tried['without_variance']} are rewarded alike and "
            "would teach nothing"
        )


def _traced(study: Study, where: str, need: dict[str, Any], tried: dict[str, Any]) -> Iterator[str]:
    if "failed" in tried:
        yield f"influence tried: {tried['failed'].removeprefix('influence: ')}"
    elif tried:
        seconds = rough_time(tracing(study, need["steps"], tried))
        _, arm, number = where.split(".")
        apart = "" if study.trained[arm][int(number)].method == "sft" else ", sampling apart"
        yield (
            f"influence tried: at most {_gb(tried['peak'])} with the {tried['samples']} longest samples; "
            f"{seconds} after the training if all were so long{apart}"
        )


def _accounting(study: Study, where: str, need: dict[str, Any], tried: dict[str, Any]) -> str:
    if "seconds_a_step" not in tried:
        return ""
    _, arm, number = where.split(".")
    seconds = accounting(study, study.trained[arm][int(number)], need["steps"] * tried["seconds_a_step"])
    return f", {rough_time(seconds)} after the training, benchmarks' gradients apart"


def _evaluated(study: Study, found: Preflight) -> Iterator[str]:
    """Of the stage whose evaluations take most."""
    asking = max((need["asking"] for need in found.checked["needs"].values()), key=lambda one: one["total"])
    vllm = f", vLLM's share {_gb(asking['vllm'])}" if asking["vllm"] else ""
    base = f", the base {_gb(asking['base'])}" if asking["base"] else ""
    yield (
        f"evaluation: {_gb(asking['total'])} by arithmetic (a checkpoint {_gb(asking['weights'])}{base}{vllm}, a batch "
        f"{_gb(asking['batch'])})"
    )
    tried = found.evaluation
    if "failed" in tried:
        yield f"evaluation tried: {tried['failed'].removeprefix('evaluation: ')}"
    elif tried:
        seconds = tried["asked"] * paces(tried, study.compute.gpus).question
        yield (
            f"evaluation tried: at most {_gb(tried['peak'])} with the {tried['questions']} longest questions; "
            f"{rough_time(seconds)} for a checkpoint's {tried['asked']:,} if all were so long"
        )


def _hours(study: Study, found: Preflight) -> str:
    """Of a study, and of the kinds of its stages."""
    times = study_times(study, found)
    if times is None:
        return "unknown, since not every stage and the evaluation were tried"
    base, *stages = times.values()
    at_once = stages_at_once(study)
    left = sum(base) + max(study.replicates * sum(map(sum, stages)) / at_once, *map(sum, stages))
    parts = []
    for kind in Times._fields:
        seconds = study.replicates * sum(getattr(one, kind) for one in stages) + getattr(base, kind)
        parts += [f"{kind} {rough_time(seconds).removeprefix('about ')}"] if seconds else []
    chosen = any(isinstance(stage, SFT) and stage.select is not None for one in study.trained.values() for stage in one)
    own = ", and vLLM's as the base's to the longest questions" if study.evaluation.vllm is not None else ""
    return (
        f"{rough_time(left)} for all replicates, {at_once} at a time, if all answers were as long as they may be{own}: "
        f"{', '.join(parts)}{'; choosing samples apart' if chosen else ''}"
    )


def _gb(size: float) -> str:
    if size < GB:
        return f"{size / 1e6:,.0f} MB"
    return f"{size / GB:,.0f} GB" if size >= 10 * GB else f"{size / GB:,.1f} GB"
