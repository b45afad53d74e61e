"""The bundled base model: Qwen2.5-VL's architecture with a million parameters, built from nothing on a CPU.

It knows the prior benchmarks, knows how a jigsaw is answered, and has no skill at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from holdfast.benchmarks.prior import digits, grounding, pieces
from holdfast.config.model import Recipe
from holdfast.data.world import COLORS, SHAPES, Scene, generator, world_scene
from holdfast.journal import Journal
from holdfast.models.load import save_checkpoint
from holdfast.models.tiny.curriculum import IGNORED, Lesson, prepare
from holdfast.models.tiny.optimizer import Muon, TrainingPhase
from holdfast.models.tiny.parallel_map import parallel_map
from holdfast.models.tiny.processor import MERGE, PATCH, build_processor

AT_ONCE = 250
"""Warm-up images that are drawn together."""
PARTS = 4
"""Of a batch; each goes through the model by itself."""
CELL_FACTS = (4, 1 + len(SHAPES) + 10, len(COLORS), 2, *[grounding.RASTER + 1] * 4)
"""How many values each fact about a cell can take: its place, thing, color, original row, and the thing's box."""
UNASKED = -1
UNASKED_BOX = (UNASKED,) * 4
SHARPNESS = 2.0
FEATURE_SCALE = 0.5
"""Standard deviation of the tower's output: near the text's embeddings, so that layers can add to both."""


def build_base(recipe: Recipe, seed: int, out: Path, journal: Journal) -> None:
    """Warm up the vision tower, teach the prior, save a checkpoint to out/model."""
    # Threads share out the parts of a batch; one operation on several would round otherwise.
    torch.set_num_threads(1)
    processor = build_processor()
    torch.manual_seed(seed)
    model = build_model(processor)
    _warm_up(model, processor, recipe, seed, journal)
    _teach(model, processor, recipe, seed, journal)
    save_checkpoint(model, processor, out / "model")


def build_model(processor: Qwen2_5_VLProcessor, hidden: int = 128, layers: int = 3) -> Any:
    """A randomly initialised model that fits the processor."""
    tokenizer = processor.tokenizer
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in tokenizer.all_special_tokens}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "intermediate_size": hidden * 2,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": 0.08,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": _sections(hidden // 4)},
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": 2,
        "hidden_size": hidden * 3 // 4,
        "intermediate_size": hidden * 3 // 2,
        "num_heads": 4,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "window_size": PATCH * MERGE * 64,
        "out_hidden_size": hidden,
        "fullatt_block_indexes": [0, 1],
        "initializer_range": 0.08,
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    return model


def _sections(head: int) -> list[int]:
    half = head // 2
    time = half // 4
    height = (half - time + 1) // 2 if (half - time) % 2 else (half - time) // 2
    return [time, height, half - time - height]


def _warm_up(model: Any, processor: Qwen2_5_VLProcessor, recipe: Recipe, seed: int, journal: Journal) -> None:
    """Teach the vision tower what is in every cell; language alone does not get it there in thousands of steps.

    Each value of each fact has a fixed code, orthogonal to all others. Learned heads would read faint features as
    well as strong ones; fixed codes make every fact equally strong, so that language finds shape as soon as colour.
    """
    pixels, labels = _examples(processor, seed, recipe)
    tower = model.model.visual
    codes = nn.init.orthogonal_(torch.empty(sum(CELL_FACTS), model.config.text_config.hidden_size))
    total = recipe.warmup_steps + recipe.steps
    optimizer = torch.optim.AdamW(tower.parameters(), lr=recipe.learning_rate)
    with TrainingPhase([optimizer], recipe.warmup_steps, recipe.threads) as phase:
        for step, batch in enumerate(_batches(len(labels), recipe.batch_size, recipe.warmup_steps, seed)):
            counts = (labels[batch] != UNASKED).sum((0, 1)).clamp(min=1)

            def loss_of(part: list[int], counts: Tensor = counts) -> Tensor:
                return (_fact_losses(tower, codes, pixels[part], labels[part]) / counts).sum()

            loss = phase.step([batch[first::PARTS] for first in range(PARTS)], loss_of)
            _report(journal, step, total, loss, "train/warmup_loss")
    with torch.no_grad():
        cells = _cell_features(tower, pixels[: recipe.batch_size])
        _scale(tower, FEATURE_SCALE / cells.std().item())


def _examples(processor: Qwen2_5_VLProcessor, seed: int, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Patches of the warm-up's images, in half precision to spare memory, and their facts."""

    def drawn(indices: range) -> tuple[np.ndarray, np.ndarray]:
        images, facts = zip(*(_labelled(seed, index) for index in indices), strict=True)
        values = processor.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        return values.half().unflatten(0, (len(images), -1)).numpy(), np.array(facts)

    chunks = [range(first, min(first + AT_ONCE, recipe.images)) for first in range(0, recipe.images, AT_ONCE)]
    pixels, facts = zip(*parallel_map(drawn, chunks, recipe.threads), strict=True)
    return torch.from_numpy(np.concatenate(pixels)), torch.from_numpy(np.concatenate(facts))


def _cell_features(tower: Any, pixels: Tensor) -> Tensor:
    """What the tower gives out for every cell: (images × cells, hidden)."""
    grid = torch.tensor([[1, 64 // PATCH, 64 // PATCH]] * len(pixels))
    return tower(pixels.float().flatten(0, 1), grid_thw=grid).pooler_output


def _fact_losses(tower: Any, codes: Tensor, pixels: Tensor, labels: Tensor) -> Tensor:
    """Summed cross-entropy of each fact (facts,)."""
    cells = _cell_features(tower, pixels)
    facts = (SHARPNESS * nn.functional.rms_norm(cells, cells.shape[-1:]) @ codes.T).split(CELL_FACTS, dim=-1)
    targets = labels.flatten(0, 1).T
    return torch.stack(
        [
            nn.functional.cross_entropy(fact, target, ignore_index=UNASKED, reduction="sum")
            for fact, target in zip(facts, targets, strict=True)
        ]
    )


@torch.no_grad()
def _scale(tower: Any, factor: float) -> None:
    """Multiply what the tower gives out."""
    for parameter in tower.merger.mlp[-1].parameters():
        parameter.mul_(factor)


def _labelled(seed: int, index: int) -> tuple[Image.Image, list[list[int]]]:
    """An image (a digit in it, shuffled, or as it is, in turn) and the facts of each of its four cells."""
    rng = generator("warm-up", seed, index)
    scene = world_scene(seed, "warm-up", index)
    if index % 3 == 0:
        question = digits.ask(scene, rng, "train")
        place, digit = int(question.think.split()[1]) - 1, 1 + len(SHAPES) + int(question.answer)
        return question.image, [[p, digit if p == place else 0, -1, p // 2, *UNASKED_BOX] for p in range(4)]
    order = rng.permutation(4) if index % 3 == 1 else np.arange(4)
    cells = [_facts(scene, shown, int(place)) for shown, place in enumerate(order)]
    return pieces.shuffled(scene.image, order), cells


def _facts(scene: Scene, shown: int, place: int) -> list[int]:
    """Facts of the cell from `place`, shown elsewhere perhaps; a thing of kind 0 is none, -1 is not asked."""
    thing = scene.at(place)
    if thing is None:
        return [shown, 0, -1, place // 2, *UNASKED_BOX]
    half = scene.image.width // 2
    right, down = half * (shown % 2 - place % 2), half * (shown // 2 - place // 2)
    x1, y1, x2, y2 = thing.box
    box = grounding.raster((x1 + right, y1 + down, x2 + right, y2 + down), scene.image.width)
    return [shown, 1 + SHAPES.index(thing.shape), list(COLORS).index(thing.color), place // 2, *box]


def _teach(model: Any, processor: Qwen2_5_VLProcessor, recipe: Recipe, seed: int, journal: Journal) -> None:
    """Teach the language model to answer; the vision tower stays as it was warmed up."""
    lessons = prepare(model, processor, seed, recipe)
    total = recipe.warmup_steps + recipe.steps
    with TrainingPhase(_optimizers(model, recipe), recipe.steps, recipe.threads) as phase:
        for step, batch in enumerate(
            _batches(len(lessons), recipe.batch_size, recipe.steps, seed), recipe.warmup_steps
        ):
            chosen = sorted((lessons[i] for i in batch), key=lambda lesson: len(lesson.ids))
            weight = sum(float(lesson.weights[lesson.labels != IGNORED].sum()) for lesson in chosen)

            def loss_of(part: list[Lesson], weight: float = weight) -> Tensor:
                return _loss(model, part) / weight

            loss = phase.step(_of_like_length(chosen), loss_of)
            _report(journal, step, total, loss, "train/loss")


def _optimizers(model: Any, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    language = model.model.language_model
    matrices = [parameter for parameter in language.layers.parameters() if parameter.ndim == 2]
    own = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in language.parameters() if id(parameter) not in own]
    muon = Muon(matrices, recipe.matrix_learning_rate, threads=recipe.threads)
    return [muon, torch.optim.AdamW(others, lr=recipe.learning_rate)]


def _of_like_length(lessons: list[Lesson]) -> list[list[Lesson]]:
    """Sorted lessons in parts of like length, to spare the padding; the longest first, to keep all threads busy."""
    size = -(-len(lessons) // PARTS)
    return [lessons[first : first + size] for first in range(0, len(lessons), size)][::-1]


def _loss(model: Any, lessons: list[Lesson]) -> Tensor:
    """Weighted sum over the lessons' tokens."""
    weights = pad_sequence([lesson.weights for lesson in lessons], batch_first=True)
    labels = pad_sequence([lesson.labels for lesson in lessons], batch_first=True, padding_value=IGNORED)
    return _token_losses(model, lessons) @ weights[:, 1:][labels[:, 1:] != IGNORED]


def _token_losses(model: Any, lessons: list[Lesson]) -> Tensor:
    ids = pad_sequence([lesson.ids for lesson in lessons], batch_first=True)
    labels = pad_sequence([lesson.labels for lesson in lessons], batch_first=True, padding_value=IGNORED)
    positions = pad_sequence([lesson.positions.T for lesson in lessons], batch_first=True).permute(2, 0, 1)
    embedded = model.get_input_embeddings()(ids)
    features = torch.cat([lesson.features for lesson in lessons])
    embedded = embedded.masked_scatter((ids == model.config.image_token_id)[..., None], features)
    hidden = model.model.language_model(inputs_embeds=embedded, position_ids=positions).last_hidden_state
    taught = labels[:, 1:] != IGNORED
    return nn.functional.cross_entropy(model.lm_head(hidden[:, :-1][taught]), labels[:, 1:][taught], reduction="none")


def _batches(count: int, size: int, steps: int, seed: int) -> Iterator[list[int]]:
    rng = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield torch.randint(count, (size,), generator=rng).tolist()


def _report(journal: Journal, step: int, total: int, loss: float, name: str) -> None:
    if (step + 1) % 50 == 0 or step + 1 == total:
        journal.log(step + 1, {name: loss})
        journal.progress(step + 1, total, loss=loss)
