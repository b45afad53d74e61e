"""A GRPO step of ours beside one of TRL's plain GRPOTrainer, with the same weights, data and arguments, in one run.

Run: python -m bench.rft [--quick] [--shape 3b] [--rounds 7] [--threads 1] [--checkpointing on|off] [--vllm]. By default
on the bundled base with the `rft` arm of experiments/bundled.yaml; `3b` is Qwen2.5-VL-3B with random weights and the
adapters of experiments/qwen3b-lora.yaml, for a GPU, and `stand-in` its tiny double. `--vllm` adds ours with rollouts by
vLLM in the same process, weights that are sent to it in every round included; where vLLM is missing, or the GPU that it
needs, a line says so.

A round is one generation and the steps that learn from it. The trainers take turns, see the same prompts and the same
random numbers, and learn at rate 0, so that they have the same weights and the same work in every round; the round
before the first does not count. `log-probs` are those of rollouts before anything is learned from them, `update` is the
loss, its gradient and the optimizer, `rest` the preparation of images and texts. Prints a Markdown table in seconds a
step (medians of rounds), and how far the two gradients of one batch are apart.
"""

from __future__ import annotations

import argparse
import os
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOTrainer

from bench.grpo_sides import COLUMNS, Agreement, Seconds, Side, Work, agreement
from bench.qwen import QWEN_3B, STAND_IN, Shape, model_of, processor_of, puzzles, puzzles_for
from flows.commands.experiment import load_study
from holdfast.data.training_set import TrainingRow
from holdfast.determinism import settle_torch
from holdfast.errors import UserError
from holdfast.models.load import load_model, load_processor
from holdfast.models.tiny.shipped import shipped_base
from holdfast.models.vllm_engine import require_engine
from holdfast.training.arguments import length
from holdfast.training.grpo import prompt_dataset
from holdfast.training.prompt_sharing_trainer import PromptSharingTrainer

ROUNDS = 7
PLAIN, OURS, BY_VLLM = "TRL's plain", "Holdfast", "Holdfast with vLLM"
EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def bundled(where: torch.device, **changed: Any) -> Work:
    """The default study's reinforced arm, with some of TRL's arguments changed."""
    study = load_study(EXPERIMENTS / "bundled.yaml")
    stage = stage_of("bundled.yaml", "rft")
    base = shipped_base()
    ask = partial(puzzles, images=study.images, target=study.target)
    return Work(lambda: load_model(base, where=where), load_processor(base), _unmoved(stage, changed), where, ask)


def shaped(shape: Shape, where: torch.device, **changed: Any) -> Work:
    """Random weights with the adapters of the experiment for 3B; every completion is as long as the shape says."""
    long = {"max_completion_length": shape.completion, "generation_kwargs": {"min_new_tokens": shape.completion}}
    processor, half = processor_of(shape), where.type == "cuda"
    dtype = torch.bfloat16 if half else torch.float32
    stage = _unmoved(stage_of("qwen3b-lora.yaml", "rft"), {**long, **changed})
    ask = partial(puzzles_for, shape)
    return Work(lambda: model_of(shape, processor, where, dtype), processor, stage, where, ask, half)


def stage_of(file: str, arm: str) -> Any:
    """The stage of an experiment's arm that has one."""
    [stage] = load_study(EXPERIMENTS / file).trained[arm]
    return stage


def _unmoved(stage: Any, changed: dict[str, Any]) -> Any:
    """At rate 0 all that a step does is done, and nothing comes of it."""
    return stage.model_copy(update={"trainer": {**stage.trainer, **changed, "learning_rate": 0.0}})


def without_vllm(field: str) -> str:
    """That vLLM has no part in this, and why; nothing where it can have one."""
    try:
        require_engine(field)
    except UserError as error:
        # What follows is for a study that asks for it.
        return f"{BY_VLLM} is left out: {str(error).partition(', or remove')[0]}"
    return ""


def trainers(work: Work, rounds: int, names: tuple[str, ...] = (PLAIN, OURS)) -> tuple[dict[str, Side], list[Dataset]]:
    """Those of the names, and the prompts of every round."""
    each = length(work.config(), 1).rows
    rows = [TrainingRow(question) for question in work.ask(each * rounds)]
    asked = [prompt_dataset(work.processor, rows, list(range(at, at + each))) for at in range(0, len(rows), each)]
    kinds = {PLAIN: GRPOTrainer, OURS: PromptSharingTrainer, BY_VLLM: PromptSharingTrainer}
    works = {name: work.by_vllm() if name == BY_VLLM else work for name in names}
    return {name: Side(kinds[name], own, asked[0]) for name, own in works.items()}, asked


def take_turns(sides: dict[str, Side], rounds: list[Dataset]) -> dict[str, list[Seconds]]:
    """Of every round but the first, in an order that changes from round to round."""
    found: dict[str, list[Seconds]] = {name: [] for name in sides}
    for turn, prompts in enumerate(rounds):
        for name in list(sides)[:: 1 if turn % 2 else -1]:
            found[name].append(sides[name].round(prompts, turn))
    return {name: taken[1:] for name, taken in found.items()}


def ratios(taken: dict[str, list[Seconds]], part: str, name: str = OURS) -> list[float]:
    """A trainer's over plain of every round, sorted; none where the plain trainer has nothing to do."""
    rounds = zip(taken[name], taken[PLAIN], strict=True)
    return sorted(mine[part] / base[part] for mine, base in rounds if base[part] > 0)


def table(taken: dict[str, list[Seconds]]) -> str:
    """Seconds a step, and what the others take of plain's."""
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
    for name, rounds in taken.items():
        each = [f"{statistics.median(one[part] for one in rounds):.3f}" for part in COLUMNS]
        lines.append(f"| {name} | {' | '.join(each)} |")
    for name in taken:
        shares = [
            found and f"{statistics.median(found):.2f} ({found[0]:.2f}–{found[-1]:.2f})"
            for found in (ratios(taken, part, name) for part in COLUMNS)
        ]
        if name != PLAIN:
            lines.append(f"| {name} / plain | {' | '.join(share or '–' for share in shares)} |")
    return "\n".join(lines)


def said(found: Agreement) -> str:
    """In a sentence."""
    return (
        f"{found.same} of {found.rollouts} rollouts are the same; the losses of one batch are {found.loss:.0e} apart, "
        f"the gradients {found.gradient:.0e} of their length"
    )


def apart(side: Side) -> str:
    """How far vLLM's probabilities are from the trainer's, in a sentence."""
    return f"log-probabilities of vLLM and of the trainer are {side.difference():.0e} nats apart"


def take_one_card() -> None:
    """Of several, as a stage does: transformers would else cut every batch among them."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two prompts a step, two rounds")
    parser.add_argument("--shape", choices=("bundled", "3b", "stand-in"), default="bundled")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=1, help="as many as a stage of the default study has")
    parser.add_argument("--checkpointing", choices=("on", "off"), help="by default on above a billion parameters")
    parser.add_argument("--vllm", action="store_true", help="also ours with rollouts by vLLM")
    arguments = parser.parse_args()
    take_one_card()
    settle_torch(arguments.threads)
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.shape == "3b" and where.type == "cpu":
        parser.error("--shape 3b needs a GPU; `--shape stand-in` runs the same on a CPU")
    small = {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 1} if arguments.quick else {}
    shape = {"3b": QWEN_3B, "stand-in": STAND_IN}.get(arguments.shape)
    work = bundled(where, **small) if shape is None else shaped(shape, where, **small)
    if arguments.checkpointing:
        work = work._replace(checkpointing=arguments.checkpointing == "on")
    names: tuple[str, ...] = (PLAIN, OURS)
    if arguments.vllm and (left_out := without_vllm("--vllm")):
        print(f"{left_out}\n")
    elif arguments.vllm:
        names += (BY_VLLM,)
    before = os.getloadavg()[0]
    sides, asked = trainers(work, 1 + (2 if arguments.quick else arguments.rounds), names)
    print(table(take_turns(sides, asked)))
    print(f"\n{said(agreement(sides[PLAIN], sides[OURS]))}")
    if BY_VLLM in sides:
        print(apart(sides[BY_VLLM]))
    machine = torch.cuda.get_device_name() if where.type == "cuda" else f"{arguments.threads} threads"
    print(f"{machine}; load {before:.1f} before, {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
