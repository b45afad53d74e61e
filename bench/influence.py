"""What per-sample influences cost beyond an ordinary training pass, and next to measuring one sample at a time.

Run: python -m bench.influence [--quick] [--spaces full linear lora] [--times 512 1024] [--targets 1 16] [--threads 2]
[--memory]. A Llama of 30 million random weights sees 1024 tokens as a batch of samples of `time` tokens each, three
quarters of them supervised. `plain` is a forward and a backward pass with gradients of the weights, `ours` the engine,
`naive` a pass a sample with a dot a target and parameter. Milliseconds are a sample's; `plain` and `ours` take turns,
and the ratio is the median (and range) of the rounds'. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from holdfast.influence.engine.engine import Engine
from holdfast.influence.engine.gradients import (
    Gradient,
    batch_gradient,
    completion_logits,
    log_likelihood,
    selection,
)
from holdfast.models.encode import TeacherForced, teacher_forced

TOKENS, VOCABULARY, ROUNDS = 1024, 8192, 5
CHECKED = 1
"""Samples whose error is measured against float64."""
ADAPTED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Setting(NamedTuple):
    """One line of the table."""

    space: str
    time: int
    targets: int


class Workload(NamedTuple):
    """A model, a batch, and targets."""

    model: Any
    batch: TeacherForced
    targets: list[Gradient]


def build(setting: Setting) -> Workload:
    """The same for every method and process."""
    torch.manual_seed(0)
    shape = {"vocab_size": VOCABULARY, "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8}
    model: Any = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=8, tie_word_embeddings=True))
    if setting.space == "linear":
        for name, value in model.named_parameters():
            value.requires_grad_("_proj" in name)
    if setting.space == "lora":
        model = get_peft_model(model, LoraConfig(r=8, target_modules=ADAPTED, init_lora_weights=False))
    samples = max(1, TOKENS // setting.time)
    ids = torch.randint(1, VOCABULARY, (samples, setting.time))
    asked = setting.time // 4
    prompts = [{"input_ids": row[:asked], "attention_mask": torch.ones(asked, dtype=torch.long)} for row in ids]
    batch = teacher_forced(prompts, [row[asked:].tolist() for row in ids], 0, torch.device("cpu"))
    chosen = selection(model).items()
    targets = [{name: torch.randn(value.shape) for name, value in chosen} for _ in range(setting.targets)]
    return Workload(model.eval(), batch, targets)


def plain(work: Workload) -> Callable[[], None]:
    """An ordinary training pass."""

    def run() -> None:
        work.model.zero_grad()
        log_likelihood(completion_logits(work.model, work.batch), work.batch).sum().backward()
        work.model.zero_grad()

    return run


def ours(work: Workload) -> Callable[[], tuple[Tensor, Tensor]]:
    """Norms (samples,) and dots (samples, targets)."""
    engine = Engine(work.model, work.targets)

    def run() -> tuple[Tensor, Tensor]:
        measured = engine.measure(work.batch)
        return measured.norm2, measured.dot

    return run


def naive(work: Workload) -> Callable[[], tuple[Tensor, Tensor]]:
    """The same, a pass a sample."""
    singles = [one_of(work.batch, row) for row in range(len(work.batch.targets))]

    def run() -> tuple[Tensor, Tensor]:
        norms2, dots = zip(*(_single(work, single) for single in singles), strict=True)
        return torch.stack(norms2), torch.stack(dots)

    return run


def _single(work: Workload, single: TeacherForced) -> tuple[Tensor, Tensor]:
    gradient = batch_gradient(work.model, single)
    norm2 = torch.stack([value.square().sum() for value in gradient.values()]).sum()
    dots = [sum((value * target[name]).sum() for name, value in gradient.items()) for target in work.targets]
    return norm2, torch.stack(dots)


def one_of(batch: TeacherForced, row: int) -> TeacherForced:
    """One sample; all are equally long."""
    one = slice(row, row + 1)
    inputs = {name: value[one] for name, value in batch.inputs.items()}
    return TeacherForced(inputs, batch.targets[one], batch.mask[one], batch.images[one])


def error(work: Workload) -> float:
    """Largest deviation from float64, of norms relative to themselves and of dots to the product of lengths."""
    rows = range(min(CHECKED, len(work.batch.targets)))
    found = ours(work)()
    double = work._replace(
        model=work.model.double(),
        targets=[{name: value.double() for name, value in target.items()} for target in work.targets],
    )
    sizes = torch.tensor([sum(value.square().sum() for value in target.values()) for target in double.targets])
    worst = 0.0
    for row in rows:
        norm2, dots = _single(double, one_of(work.batch, row))
        worst = max(worst, float((found[0][row] / norm2 - 1).abs() / 2))
        worst = max(worst, float(((found[1][row] - dots).abs() / (norm2 * sizes).sqrt()).max()))
    work.model.float()
    return worst


METHODS: dict[str, Callable[[Workload], Callable[[], Any]]] = {"plain": plain, "ours": ours, "naive": naive}


def line(setting: Setting, rounds: int) -> str:
    """A row of the table."""
    work = build(setting)
    calls = {name: method(work) for name, method in METHODS.items()}
    seconds = take_turns({name: calls[name] for name in ("plain", "ours")}, rounds)
    seconds |= take_turns({"naive": calls["naive"]}, 1)
    each = [f"{1000 * statistics.median(of) / len(work.batch.targets):.1f}" for of in seconds.values()]
    ratios = sorted(mine / base for mine, base in zip(seconds["ours"], seconds["plain"], strict=True))
    ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
    gain = f"{seconds['naive'][0] / statistics.median(seconds['ours']):.1f}"
    return f"| {' | '.join([*map(str, setting), *each, ratio, gain, f'{error(work):.0e}'])} |"


def take_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, in an order that changes from round to round, after a first one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values() if rounds > 1 else ():
        call()
    for turn in range(rounds):
        for name in list(calls)[:: 1 if turn % 2 else -1]:
            started = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def memory_line(setting: Setting) -> str:
    """A row of the memory table: what a method needs at most beyond the model, its batch and the targets, in MiB."""
    allowed = setting.targets * target_mb(setting)
    peaks = [f"{peak_memory_mb(method, setting):.0f}" for method in METHODS]
    return f"| {' | '.join([*map(str, setting), f'{allowed:.0f}', *peaks])} |"


def target_mb(setting: Setting) -> float:
    """One target's gradient."""
    return sum(value.nbytes for value in selection(build(setting).model).values()) / 2**20


def peak_memory_mb(method: str, setting: Setting) -> float:
    """By how much one call raises the peak of a fresh process that has built the workload."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure_memory, method, setting).result()


def _measure_memory(method: str, setting: Setting) -> float:
    work = build(setting)
    before = _peak_mb()
    METHODS[method](work)()
    return _peak_mb() - before


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def settings(arguments: argparse.Namespace) -> Iterator[Setting]:
    """What was asked for."""
    for space in arguments.spaces:
        for length in arguments.times:
            for count in arguments.targets:
                yield Setting(space, length, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one setting, three rounds")
    parser.add_argument("--times", type=int, nargs="+", default=[32, 128, 512, 1024])
    parser.add_argument("--targets", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--spaces", nargs="+", default=["full", "lora"])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", action="store_true", help="peak memory of each method instead of its time")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.times, arguments.targets, arguments.rounds = [128], [4], 3
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        heads = ["space", "time", "targets", "targets MiB", *(f"{name} MiB" for name in METHODS)]
        print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        for setting in settings(arguments):
            print(memory_line(setting), flush=True)
        return
    heads = ["space", "time", "targets", "plain ms", "ours ms", "naive ms", "ours / plain", "naive / ours", "error"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for setting in settings(arguments):
        print(line(setting, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
