"""What is measured on a card (bench/gpu.py): supervised steps, GRPO steps, influence; each with the memory it takes."""

from __future__ import annotations

import gc
import resource
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from transformers import PrinterCallback

from bench import influence, rft
from bench.grpo_sides import Seconds, Side, agreement, machine, now
from bench.qwen import Shape, model_of, processor_of, puzzles_for
from holdfast.data.training_set import TrainingRow
from holdfast.influence.engine.gradients import selection
from holdfast.models.encode import completion_ids, encode, teacher_forced
from holdfast.models.lora import adapted
from holdfast.models.precision import learn_in_float32
from holdfast.models.shape import shape_of
from holdfast.stages.needs import Batch, Method, operations
from holdfast.stages.trial import FILLER, Clock
from holdfast.training.arguments import set_checkpointing, trainer_config
from holdfast.training.sft import sft_trainer
from holdfast.training.stage import LARGE

WARM, STEPS, ROUNDS, TARGETS, SAMPLES = 2, 6, 3, 4, 4
GB = 1e9


class Bench(NamedTuple):
    """Where it runs and what with."""

    shape: Shape
    where: torch.device
    peak: float | None
    """Operations a second that the device could do, where that is known."""

    @property
    def stand_in(self) -> bool:
        return self.where.type == "cpu"

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.stand_in else torch.bfloat16


class Row(NamedTuple):
    """A line of the table."""

    what: str
    seconds: float | None = None
    """Of a step, or a pass."""
    tokens: float | None = None
    """A second, images and padding included."""
    tflops: float | None = None
    utilisation: float | None = None
    ratio: tuple[float, float, float] | None = None
    """To the plain one: median, least, most."""
    memory: float | None = None
    """GB at most."""
    note: str = ""


def sft(bench: Bench, file: str) -> list[Row]:
    """Supervised steps, of adapters or of all of the language model."""
    stage = rft.stage_of(file, "answers")
    what = "SFT, LoRA" if stage.lora else "SFT, full"
    processor = processor_of(bench.shape)
    # Weights that learn are made in float32, as a stage loads them.
    dtype = bench.dtype if stage.lora else torch.float32
    model = learn_in_float32(adapted(model_of(bench.shape, processor, bench.where, dtype), stage, 0))
    config: Any = trainer_config(stage, 0, machine(bench.where, half=not bench.stand_in))
    config.max_steps = WARM + STEPS
    config.logging_steps = 1000
    set_checkpointing(config, model.num_parameters() > LARGE)
    each = config.per_device_train_batch_size * config.gradient_accumulation_steps
    completion = FILLER * bench.shape.completion
    rows = [TrainingRow(question, completion) for question in puzzles_for(bench.shape, each)]
    trainer = sft_trainer(model, processor, config, rows, list(range(each)) * config.max_steps)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(clock := Clock())
    trainer.train()
    [prompt] = encode(processor, [rows[0].question])
    tokens = len(completion_ids(processor.tokenizer, completion))
    batch = Batch(each, len(prompt["input_ids"]), tokens, bench.shape.patches)
    seconds = clock.seconds(STEPS)
    done = operations(shape_of(model), batch, Method()) / seconds
    note = f"{each} samples of {batch.tokens // each} tokens"
    used = bench.peak and done / bench.peak
    return [Row(what, seconds, batch.tokens / seconds, done / 1e12, used, memory=memory(), note=note)]


def grpo(bench: Bench, checkpointing: bool) -> list[Row]:
    """A step of each trainer, as bench/rft.py takes them. Above a billion parameters a study has checkpointing."""
    work = rft.shaped(bench.shape, bench.where)._replace(checkpointing=checkpointing)
    sides, asked = rft.trainers(work, 1 + ROUNDS)
    taken = rft.take_turns(sides, asked)
    found = rft.said(agreement(*sides.values()))
    rows = _steps(f"GRPO step{'' if checkpointing else ' without checkpointing'}", taken, found)
    peaks = [_without_others(sides, name) / GB if sides[name].peak else memory() for name in sides]
    return [row._replace(memory=peak) for row, peak in zip(rows, peaks, strict=True)]


def grpo_by_vllm(bench: Bench) -> list[Row]:
    """Ours with rollouts by vLLM, beside TRL's plain trainer; vLLM takes the share of the card that it is given."""
    what = "GRPO step beside vLLM"
    if left_out := rft.without_vllm("bench.gpu"):
        return [Row(what, note=left_out)]
    work = rft.shaped(bench.shape, bench.where)._replace(checkpointing=True)
    sides, asked = rft.trainers(work, 1 + ROUNDS, (rft.PLAIN, rft.BY_VLLM))
    taken = rft.take_turns(sides, asked)
    return _steps(what, taken, rft.apart(sides[rft.BY_VLLM]))


def _steps(what: str, taken: dict[str, list[Seconds]], found: str) -> list[Row]:
    """A row for each trainer, the last one's with its ratio to the plain one and with what was found."""
    rows = []
    for name, rounds in taken.items():
        split = ", ".join(f"{part} {statistics.median(one[part] for one in rounds):.3f}" for part in rft.COLUMNS[:-1])
        seconds = statistics.median(one["step"] for one in rounds)
        rows.append(Row(f"{what}, {name}", seconds, note=f"s of it: {split}"))
    ratio = spread(rft.ratios(taken, "step", list(taken)[-1]))
    return [*rows[:-1], rows[-1]._replace(ratio=ratio, note=f"{rows[-1].note}; {found}")]


def _without_others(sides: dict[str, Side], name: str) -> int:
    """The peak of one trainer, less the weights of the other, which lie beside it."""
    others: list[Any] = [side.trainer.model for other, side in sides.items() if other != name]
    return sides[name].peak - sum(value.nbytes for model in others for value in model.parameters())


def traced(bench: Bench) -> list[Row]:
    """Every sample's norm and its dots with targets in an adapter, beside a plain forward and backward pass."""
    stage = rft.stage_of("qwen3b-lora.yaml", "answers")
    processor = processor_of(bench.shape)
    model = adapted(model_of(bench.shape, processor, bench.where, bench.dtype), stage, 0).eval()
    words = processor.tokenizer
    completions = [completion_ids(words, FILLER * bench.shape.completion)] * SAMPLES
    prompts = encode(processor, puzzles_for(bench.shape, SAMPLES))
    batch = teacher_forced(prompts, completions, words.pad_token_id, bench.where)
    chosen = selection(model).items()
    targets = [{name: torch.randn_like(value, dtype=torch.float32) for name, value in chosen} for _ in range(TARGETS)]
    work = influence.Workload(model, batch, targets)
    calls = {"plain": waited_for(influence.plain(work)), "ours": waited_for(influence.ours(work))}
    seconds = influence.take_turns(calls, influence.ROUNDS)
    tokens = batch.inputs["input_ids"].numel()
    each = {name: statistics.median(of) for name, of in seconds.items()}
    ratios = sorted(mine / base for mine, base in zip(seconds["ours"], seconds["plain"], strict=True))
    note = f"LoRA, {SAMPLES} samples, {TARGETS} targets"
    return [
        Row("influence, plain pass", each["plain"], tokens / each["plain"], note=f"LoRA, {SAMPLES} samples"),
        Row(
            "influence, Holdfast", each["ours"], tokens / each["ours"], ratio=spread(ratios), memory=memory(), note=note
        ),
    ]


def waited_for(call: Callable[[], Any]) -> Callable[[], float]:
    """The call, until the GPU has done it."""

    def run() -> float:
        call()
        return now()

    return run


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, least and most of sorted values."""
    return statistics.median(values), values[0], values[-1]


def memory() -> float:
    """GB that torch's tensors held at most on the card since it was cleared; without a card, the process at most."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / GB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GB


def cleared() -> None:
    """Free what the last part held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
