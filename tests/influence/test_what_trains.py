"""The gradient that influence measures is that of the loss that trained, to the token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers

from holdfast.config.jobs import Train
from holdfast.config.refs import FileRef, ModelRef
from holdfast.data.shards import read_questions
from holdfast.data.training_set import train_rows
from holdfast.influence.engine.engine import Engine
from holdfast.influence.engine.gradients import selection
from holdfast.influence.samples import Sample, SampleEncoder, supervised_completions
from holdfast.journal import Journal
from holdfast.models.load import load_processor, save_checkpoint
from holdfast.models.tiny.processor import build_processor
from holdfast.training.callback import StageCallback
from holdfast.training.dataset import order
from holdfast.training.sft import IGNORED
from holdfast.training.stage import build

BATCH = 6
SFT = {"max_steps": 1, "per_device_train_batch_size": BATCH}
GRPO = {"max_steps": 1, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 12}
SAID = ["<answer> 3 1 2 4 </answer>", "<think> piece", "4", "<think> a </think> <answer> 2 1 4 3 </answer>"]
"""What samples say; every other one was cut off."""


def trainer_of(job: Train, out: Path) -> Any:
    """In float64, without dropout, so that nothing but the loss can differ."""
    processor = load_processor(job.start)
    trainer = build(job, processor, out, StageCallback(out, Journal(out), lambda model, step: {}, processor))
    trainer.model.double().train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def batch_of(trainer: Any) -> dict[str, Any]:
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def descent(trainer: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The gradient of TRL's own loss, with its sign turned so that it ascends the log-likelihood."""
    trainer.model.zero_grad()
    trainer.compute_loss(trainer.model, batch).backward()
    return {name: -value.grad for name, value in selection(trainer.model).items()}


def directions(model: Any, count: int = 4) -> list[dict[str, torch.Tensor]]:
    rng = torch.Generator().manual_seed(0)
    shapes = selection(model).items()
    return [{name: torch.randn(v.shape, generator=rng, dtype=v.dtype) for name, v in shapes} for _ in range(count)]


def agree(trainer: Any, trained: dict[str, torch.Tensor], samples: list[Sample], tokens: int) -> None:
    """Σ w g of the engine, seen from random directions and from the loss's own, is TRL's gradient times the tokens."""
    processor = trainer.processing_class
    targets = [*directions(trainer.model), trained]
    model = trainer.model
    [batch] = SampleEncoder(processor, len(samples)).batches(samples, model.device)
    measured = Engine(model, targets).measure(batch)
    weights = torch.tensor([sample.weight for sample in samples], dtype=torch.float64)
    found = (weights[:, None] * measured.dot).sum(0)
    wanted = torch.stack([sum((trained[n] * t[n]).sum() for n in trained) for t in targets]) * tokens
    norm = torch.stack([sum(t[n].square().sum() for n in t) for t in targets]).sqrt()
    assert wanted[-1] > 0
    assert ((found - wanted).abs() <= 1e-6 * norm * (wanted[-1] * tokens).sqrt()).all()
    assert int(measured.tokens.sum()) == tokens


def sampled(job: Train, place: Path) -> Train:
    """With samples as a file, some of them cut off."""
    questions = read_questions(job.data.path / "target-train.parquet")
    place.mkdir(parents=True)
    columns = {"id": [q.id for q in questions], "completion": [SAID[i % len(SAID)] for i in range(len(questions))]}
    ended = [i % 2 == 0 for i in range(len(questions))]
    pq.write_table(pa.table({**columns, "ended": ended}), place / "samples.parquet")
    return job.model_copy(update={"samples": FileRef(path=place / "samples.parquet", digest="x")})


def held_against_trl(job: Train, out: Path) -> Any:
    trainer = trainer_of(job, out)
    batch = batch_of(trainer)
    rows = train_rows(job)
    indices = order(len(rows), BATCH, job.seed)
    given = [supervised_completions(job, None)[index] for index in indices]
    tokens = int((batch["labels"] != IGNORED).sum())
    agree(trainer, descent(trainer, batch), SampleEncoder(trainer.processing_class, BATCH).samples(given), tokens)
    return batch


@pytest.mark.parametrize("source", ["answers", "teacher", "self", {"kind": "rollouts", "arm": "rft"}])
def test_a_supervised_batch_has_the_gradient_that_influence_measures(
    source: Any, train_job: Callable[..., Train], tmp_path: Path
) -> None:
    job = train_job({"method": "sft", "source": source, "trainer": SFT})
    if source not in ("answers", "teacher"):
        job = sampled(job, tmp_path / "samples")
    held_against_trl(job, tmp_path)


def test_a_reinforced_batch_has_the_gradient_that_influence_measures(
    train_job: Callable[..., Train], schooled: ModelRef, tmp_path: Path
) -> None:
    job = train_job({"method": "grpo", "trainer": GRPO}, start=schooled)
    trainer = trainer_of(job, tmp_path)
    asked = next(iter(trainer.get_train_dataloader()))
    # In the order of the questions; TRL shuffles what it buffers.
    batch = trainer._generate_and_score_completions(asked)
    assert batch["advantages"].any()
    questions = {question.id: question for question in read_questions(job.data.path / "target-train.parquet")}
    rollouts = zip(batch["completion_ids"], batch["completion_mask"].bool(), strict=True)
    said = [ids[mask].tolist() for ids, mask in rollouts]
    given = zip((questions[row["id"]] for row in asked), said, batch["advantages"].tolist(), strict=True)
    samples = SampleEncoder(trainer.processing_class, 8).rollout_samples(list(given))
    agree(trainer, descent(trainer, batch), samples, int(batch["completion_mask"].sum()))


GEMMA = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
TURNS = (
    "{% for m in messages %}<start_of_turn>{{ m.role }}\n"
    "{% for part in m.content %}{% if part.type == 'image' %}<start_of_image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def gemma(place: Path) -> ModelRef:
    """A tiny Gemma 3, whose template ends a turn with a token that is not the tokenizer's EOS, and a line break."""
    words = build_processor().tokenizer
    words.chat_template = None
    names = [*GEMMA.values(), "<start_of_turn>", "<end_of_turn>"]
    words.add_special_tokens({"extra_special_tokens": names}, replace_extra_special_tokens=False)
    words._set_model_specific_special_tokens(GEMMA)
    ids = {name: words.convert_tokens_to_ids(token) for name, token in GEMMA.items()}
    for name, number in ids.items():
        setattr(words, f"{name}_id", number)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    heads = {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 64, "vocab_size": len(words) + 8}
    config = transformers.Gemma3Config(
        text_config={**sizes, **heads, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id},
        vision_config={**sizes, "image_size": 56, "patch_size": 14, "vision_use_head": False},
        mm_tokens_per_image=4,
        **{f"{name}_index": number for name, number in ids.items()},
    )
    torch.manual_seed(0)
    model = transformers.Gemma3ForConditionalGeneration(config)
    model.generation_config.eos_token_id = [words.eos_token_id, words.convert_tokens_to_ids("<end_of_turn>")]
    pixels = transformers.Gemma3ImageProcessor(size={"height": 56, "width": 56})
    processor = transformers.Gemma3Processor(pixels, words, chat_template=TURNS, image_seq_length=4)
    save_checkpoint(model, processor, place)
    return ModelRef(path=str(place), digest="gemma")


def test_another_architecture_whose_turns_end_otherwise_is_trained_and_measured_to_its_own_end(
    train_job: Callable[..., Train], tmp_path: Path
) -> None:
    start = gemma(tmp_path / "gemma")
    job = train_job(
        {"method": "sft", "source": "answers", "freeze": ["vision_tower", "projector", "embed_tokens"], "trainer": SFT},
        start=start,
    )
    batch = held_against_trl(job, tmp_path)
    end = load_processor(start).tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert [row[row != IGNORED][-1].item() for row in batch["labels"]] == [end] * BATCH
