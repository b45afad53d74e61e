"""Every architecture reads images of unlike sizes, none and several of a question, in batches as it does one by one."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ALL, TOWERS, each, made
from PIL import Image
from torch import Tensor

from holdfast.config.jobs import Train
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.data.shards import Question, write_questions
from holdfast.errors import UserError
from holdfast.evaluation.generate import Reader, Sampling, generate, score
from holdfast.influence.engine.engine import Engine
from holdfast.influence.engine.layers import find_sites
from holdfast.journal import Journal
from holdfast.models.encode import Encoded, encode, teacher_forced
from holdfast.models.load import save_checkpoint
from holdfast.training.callback import StageCallback
from holdfast.training.stage import build

CPU = torch.device("cpu")
SIZES = [[(64, 64)], [(200, 90), (60, 150)], [], [(150, 60)]]


def question(number: int, sizes: list[tuple[int, int]]) -> Question:
    rng = np.random.default_rng(number)
    images = []
    for width, height in sizes:
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(file, "PNG")
        images.append(file.getvalue())
    asked = "what is red " * (number + 1)
    return Question(str(number), str(number), tuple(images), asked, "red", "red", "exact", "seen", "red")


QUESTIONS = [question(number, sizes) for number, sizes in enumerate(SIZES)]
"""One square image, two of other shapes, none, and a wide one; the prompts differ in length."""


def questions_of(name: str) -> list[Question]:
    """What a model can be asked: one of text nothing with images."""
    return [one._replace(images=()) for one in QUESTIONS] if name == "qwen2_5_text" else QUESTIONS


@pytest.fixture(scope="module", params=each(ALL))
def pair(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    """A name, its model in float64 with weights large enough for images to matter, and its processor."""
    model, processor = made(request.param)
    with torch.no_grad():
        for value in model.parameters():
            value += 0.05 * torch.randn_like(value)
    return request.param, model.double(), processor


def prompts(processor: Any, questions: list[Question]) -> list[Encoded]:
    rows = encode(processor, questions)
    return [{k: v.double() if v.is_floating_point() else v for k, v in row.items()} for row in rows]


def test_a_batch_gives_what_each_question_gives_alone(pair: tuple[str, Any, Any]) -> None:
    name, model, processor = pair
    reader, rows = Reader(processor, 4), prompts(processor, questions_of(name))
    completions = [processor.tokenizer("red blue " * n, add_special_tokens=False)["input_ids"] for n in (1, 2, 3, 1)]
    together = score(model, reader, rows, completions)
    unseen = [
        one._replace(images=one.images and question(n + 9, SIZES[n]).images) for n, one in enumerate(questions_of(name))
    ]
    other = prompts(processor, unseen)
    for place, row in enumerate(rows):
        [alone] = score(model, reader, [row], [completions[place]])
        # Logits are compared in float32; positions are computed in it.
        torch.testing.assert_close(together[place].logprobs, alone.logprobs, rtol=1e-5, atol=1e-5)
        [elsewhere] = score(model, reader, [other[place]], [completions[place]])
        assert torch.allclose(elsewhere.logprobs, alone.logprobs, atol=1e-4) == (not unseen[place].images)


def test_several_samples_of_a_question_see_all_of_its_images_in_order(pair: tuple[str, Any, Any]) -> None:
    """Repeated image by image, the first of two would stand twice before the second."""
    name, model, processor = pair
    reader, rows = Reader(processor, 8), prompts(processor, questions_of(name))
    greedy = generate(model, reader, rows, Sampling(4))
    assert generate(model, reader, rows, Sampling(4, temperature=1e-4, count=2)) == [[a, a] for [a] in greedy]
    assert [generate(model, reader, [row], Sampling(4)) for row in rows] == [[answer] for answer in greedy]


def test_influence_tells_samples_of_any_number_of_images_apart(pair: tuple[str, Any, Any]) -> None:
    """Where a tower's parameters are shared by images in no module's rows, they are refused by name before a pass."""
    name, model, processor = pair
    rows = prompts(processor, questions_of(name))
    completions = [processor.tokenizer("red " * n, add_special_tokens=False)["input_ids"] for n in (1, 2, 3, 1)]
    batch = teacher_forced(rows, completions, processor.tokenizer.pad_token_id, CPU)
    model.requires_grad_(True)
    refused = _freeze_what_is_refused(model)
    assert all(any(word in name for word in TOWERS) for name in refused)
    assert bool(refused) == (name not in ("qwen2_vl", "qwen2_5_vl", "idefics3", "smolvlm", "qwen2_5_text"))
    Engine(model, []).verify(batch, 1e-5)


def _freeze_what_is_refused(model: Any) -> list[str]:
    refused: list[str] = []
    while True:
        try:
            find_sites(model)
        except UserError as error:
            refused.append(str(error).split("`")[1])
            model.get_parameter(refused[-1]).requires_grad_(False)
        else:
            return refused


@pytest.fixture
def job(pair: tuple[str, Any, Any], tmp_path: Path) -> Callable[..., Train]:
    """A training job on the four questions from a checkpoint of the architecture."""
    name, model, processor = pair
    save_checkpoint(model.float(), processor, tmp_path / "base")
    model.double()
    (tmp_path / "data").mkdir()
    write_questions(tmp_path / "data" / "target-train.parquet", questions_of(name))
    words = sorted({word for word in TOWERS if any(word in parameter for parameter, _ in model.named_parameters())})

    base = ModelRef(path=str(tmp_path / "base"), digest=name)

    def make(stage: dict[str, Any]) -> Train:
        return Train(
            stage={"freeze": words, **stage},
            start=base,
            base=base,
            data=DataRef(path=tmp_path / "data", digest=""),
            questions=FileRef(path=tmp_path / "data" / "target-train.parquet", digest=""),
            limit=5,
        )

    return make


def trainer_of(job: Train, processor: Any, out: Path) -> Any:
    out.mkdir()
    return build(job, processor, out, StageCallback(out, Journal(out), lambda model, step: {}, processor))


def test_supervised_learning_sees_what_evaluation_sees(
    pair: tuple[str, Any, Any], job: Callable[..., Train], tmp_path: Path
) -> None:
    name, _, processor = pair
    settings = {"max_steps": 1, "per_device_train_batch_size": 4}
    trainer = trainer_of(job({"method": "sft", "source": "answers", "trainer": settings}), processor, tmp_path / "sft")
    trainer.model.eval()
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = trainer.model(**batch).logits[:, :-1].log_softmax(-1)
    found = {}
    for row, (ids, kept) in enumerate(zip(batch["input_ids"], batch["attention_mask"], strict=True)):
        learned = labels[row] != -100
        prompt = tuple(ids[kept.bool() & ~learned].tolist())
        scores = logits[row].gather(-1, ids[1:, None]).squeeze(-1)[learned[1:]]
        found[prompt] = ids[learned].tolist(), scores
    alone = []
    for row in encode(processor, questions_of(name)):
        completion, scores = found[tuple(row["input_ids"].tolist())]
        alone.append(_plainly(trainer.model, processor, row, completion))
        torch.testing.assert_close(scores, alone[-1].detach(), rtol=1e-4, atol=1e-4)
    mean = -torch.cat(alone).mean()
    together = trainer.compute_loss(trainer.model, {**batch, "labels": labels})
    torch.testing.assert_close(together, mean, rtol=1e-5, atol=1e-5)
    _alike(trainer.model, together, mean)
    assert math.isfinite(trainer.train().training_loss)


def test_reinforcement_sees_what_evaluation_sees_and_takes_a_step(
    pair: tuple[str, Any, Any], job: Callable[..., Train], tmp_path: Path
) -> None:
    name, _, processor = pair
    settings = {"max_steps": 2, "per_device_train_batch_size": 2, "num_generations": 2, "num_iterations": 2}
    stage = {"method": "grpo", "rewards": {"score": 1.0}, "trainer": {**settings, "gradient_accumulation_steps": 4}}
    trainer = trainer_of(job(stage), processor, tmp_path / "grpo")
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 4
    trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.model.eval()
    known = {tuple(row["input_ids"].tolist()): row for row in encode(processor, questions_of(name))}
    for part in trainer._buffered_inputs:
        ids, mask = (torch.cat([part[f"{half}_{kind}"] for half in HALVES], 1) for kind in ("ids", "mask"))
        width = part["completion_ids"].shape[1]
        fields = {name: value for name, value in part.items() if name in FIELDS}
        with torch.no_grad():
            scores, *_ = trainer._get_per_token_logps_and_entropies(
                trainer.model, ids, mask, width, batch_size=1, **fields
            )
        part["advantages"] = torch.tensor([1.0, -0.5])
        wanted = torch.zeros(())
        for row, prompt in enumerate(part["prompt_ids"]):
            completion = part["completion_ids"][row][part["completion_mask"][row].bool()].tolist()
            asked = known[tuple(prompt[part["prompt_mask"][row].bool()].tolist())]
            alone = _plainly(trainer.model, processor, asked, completion)
            torch.testing.assert_close(scores[row, : len(completion)], alone.detach(), rtol=1e-4, atol=1e-4)
            wanted = wanted - part["advantages"][row] * alone.sum() / part["num_items_in_batch"]
        _alike(trainer.model, trainer._compute_loss(trainer.model, part), wanted)
    assert math.isfinite(trainer.train().training_loss)
    assert trainer.state.global_step == 2


HALVES = ("prompt", "completion")
FIELDS = (
    *("pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "num_tiles", "image_sizes"),
    *("token_type_ids", "mm_token_type_ids"),
)
"""What TRL hands on of a batch's images."""


def _plainly(model: Any, processor: Any, asked: Encoded, completion: list[int]) -> Tensor:
    """Log-probabilities of a completion without anything suppressed, as TRL takes them."""
    given = teacher_forced([asked], [completion], processor.tokenizer.pad_token_id, CPU)
    logits = model(**given.inputs, logits_to_keep=len(completion) + 1).logits[0, :-1].log_softmax(-1)
    return logits.gather(-1, given.targets[0, :, None]).squeeze(-1)


def _alike(model: Any, loss: Tensor, other: Tensor) -> None:
    """Of two losses the gradients agree, in float32."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found, wanted = (
        torch.cat([part.flatten() for part in torch.autograd.grad(value, learning)]) for value in (loss, other)
    )
    assert wanted.norm() > 0
    assert (found - wanted).norm() <= 1e-4 * wanted.norm()
