"""What a preflight found, in lines for a person."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.commands.plan import rough_time, stages_at_once
from flows.estimate import accounting, tracing
from flows.preflight import Preflight
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
    yield from (f"! {line}" for line in notes.get("told", []))
    disks = [need["disk"] for need in notes["needs"].values()]
    wanted = study.replicates * sum(disk["kept"] for disk in disks) + max(disk["running"] for disk in disks)
    free = shutil.disk_usage(root).free
    less = ""
    if wanted > free:
        less = "; keep fewer (evaluation.keep), in half precision (evaluation.keep_dtype: bfloat16), or train adapters"
    yield f"Disk: {_gb(wanted)} for all replicates, {_gb(free)} free{less}."
    yield f"Training: {_hours(study, found)}."


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


def _hours(study: Study, found: Preflight) -> str:
    """Evaluation and influence apart."""
    seconds = [
        need["steps"] * found.trials[where]["seconds_a_step"]
        for where, need in found.checked["needs"].items()
        if "seconds_a_step" in found.trials.get(where, {})
    ]
    if len(seconds) < len(found.checked["needs"]):
        return "time unknown, since not every stage was tried"
    at_once = stages_at_once(study)
    left = rough_time(max(study.replicates * sum(seconds) / at_once, *seconds, 0.0))
    return f"{left} for all replicates, {at_once} at a time, evaluation and influence apart"


def _gb(size: float) -> str:
    if size < GB:
        return f"{size / 1e6:,.0f} MB"
    return f"{size / GB:,.0f} GB" if size >= 10 * GB else f"{size / GB:,.1f} GB"
