"""The bundled model: real classes, the same every time, and lessons that say what the scenes show."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from holdfast.benchmarks import catalog
from holdfast.config.model import Recipe
from holdfast.config.refs import ModelRef, directory_digest
from holdfast.data.chat import messages, pictures
from holdfast.errors import UserError
from holdfast.journal import Journal
from holdfast.models.load import load_model, load_processor, placeholder_ids
from holdfast.models.lora import freeze
from holdfast.models.tiny import build, curriculum
from holdfast.models.tiny.captions import captions
from holdfast.models.tiny.optimizer import Muon, TrainingPhase, orthogonal
from holdfast.models.tiny.processor import build_processor


@pytest.fixture
def short(monkeypatch):
    """A curriculum that takes seconds."""
    for name in ("CAPTIONS", "FORMS"):
        monkeypatch.setattr(curriculum, name, 12)
    monkeypatch.setattr(curriculum, "QUESTIONS", dict.fromkeys(curriculum.QUESTIONS, 12))
    return Recipe(images=12, warmup_steps=2, steps=2, batch_size=8, forms=(), facts=0, threads=1)


def test_building_twice_gives_the_same_bytes_on_any_number_of_threads(short, tmp_path):
    digests = []
    for name, recipe in (("first", short), ("second", short.model_copy(update={"threads": 2}))):
        (tmp_path / name).mkdir()
        build.build_base(recipe, 0, tmp_path / name, Journal(tmp_path / name))
        digests.append(directory_digest(tmp_path / name / "model"))
    assert digests[0] == digests[1]


def test_the_checkpoint_is_one_that_the_auto_classes_load(tiny_model):
    model = AutoModelForImageTextToText.from_pretrained(tiny_model.path)
    processor = AutoProcessor.from_pretrained(tiny_model.path)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert type(processor).__name__ == "Qwen2_5_VLProcessor"
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def test_the_default_model_has_about_a_million_parameters(processor):
    parameters = sum(p.numel() for p in build.build_model(processor).parameters())
    assert 0.9e6 < parameters < 1.2e6


def test_the_vocabulary_is_the_same_every_time_and_tags_are_single_tokens(processor):
    again = build_processor()
    assert again.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    text = "<think> cell 3 red circle </think> <answer> red </answer>"
    ids = processor.tokenizer(text)["input_ids"]
    assert processor.tokenizer.decode(ids) == text
    assert len(ids) < 16


def test_a_lesson_is_the_conversation_that_the_processor_makes(short, processor):
    """The builder joins tokens and images itself, so it must agree with the processor's own path."""
    model = build.build_model(processor, hidden=64, layers=1)
    lesson = curriculum.prepare(model, processor, 0, Recipe(lessons=0.01, forms=(), threads=1))[0]
    question = next(catalog.prior_questions("color", 1, seed=0, split="train"))
    text = processor.apply_chat_template(messages(processor, question), tokenize=False, add_generation_prompt=True)
    inputs = processor(text=text, images=pictures(question), return_tensors="pt")
    prompt = int((lesson.labels == curriculum.IGNORED).sum())
    assert lesson.ids[:prompt].tolist() == inputs["input_ids"][0].tolist()
    assert processor.decode(lesson.ids[prompt:]) == question.reference + "<|im_end|>"


def test_the_loss_of_lessons_is_the_models_own(short, processor):
    """Precomputed images and positions must give what the whole model gives."""
    torch.manual_seed(0)
    model = build.build_model(processor, hidden=64, layers=1).eval()
    lesson = curriculum.prepare(model, processor, 0, Recipe(lessons=0.01, forms=(), threads=1))[0]
    question = next(catalog.prior_questions("color", 1, seed=0, split="train"))
    features = processor.image_processor(images=pictures(question), return_tensors="pt")
    ids = lesson.ids[None]
    types = (ids == processor.image_token_id).int()
    whole = model(input_ids=ids, labels=lesson.labels[None], mm_token_type_ids=types, **features).loss
    assert torch.allclose(build._token_losses(model, [lesson]).mean(), whole, rtol=1e-5)


def test_padding_changes_no_lesson(short, processor):
    model = build.build_model(processor, hidden=64, layers=1).eval()
    three = curriculum.prepare(model, processor, 0, Recipe(lessons=0.01, forms=(), threads=1))[:3]
    together = build._token_losses(model, three)
    apart = torch.cat([build._token_losses(model, [lesson]) for lesson in three])
    assert torch.allclose(together, apart, atol=1e-5)


def test_captions_name_every_thing_and_every_piece():
    cells, boxes, shuffled = islice(captions(3, seed=0), 3)
    assert cells.text.count("cell") == 4
    assert boxes.prompt == "Where is everything?"
    assert sorted(shuffled.text.split()[2::3]) == ["ground", "ground", "sky", "sky"]


def test_captions_say_yes_of_what_is_alike_and_no_of_the_rest():
    said = {"yes": 0, "no": 0}
    for caption in captions(200, seed=0):
        words = caption.text.split()
        if caption.prompt == "Which cells have the same color?":
            for first in range(0, len(words), 7):
                _, _, one, _, _, two, verdict = words[first : first + 7]
                assert verdict == ("yes" if one == two else "no")
                said[verdict] += 1
        elif caption.prompt.startswith("Which cells hold a"):
            shape_asked_for = caption.prompt.split()[-1].rstrip("?")
            for cell in caption.text.split("cell ")[1:]:
                *_, shape, verdict = cell.split()
                assert verdict == ("yes" if shape == shape_asked_for else "no")
                said[verdict] += 1
        assert words, caption.prompt
    assert min(said.values()) > 60


def test_placeholders_are_never_generated(tiny_model):
    model = load_model(tiny_model)
    assert model.generation_config.suppress_tokens == placeholder_ids(model.config)
    assert len(model.generation_config.suppress_tokens) == 4


def test_a_directory_without_a_checkpoint_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"model.path: .* holds no config.json"):
        load_model(ModelRef(path=str(tmp_path), digest=""))


def test_a_model_that_writes_no_text_from_left_to_right_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "t5", "architectures": ["T5Model"]}')
    with pytest.raises(UserError, match="t5 model, which answers no questions"):
        load_model(ModelRef(path=str(tmp_path), digest=""))


def test_frozen_words_stop_learning_and_unknown_ones_are_refused(processor):
    model = build.build_model(processor, hidden=64, layers=1)
    freeze(model, ("visual",))
    assert not any(p.requires_grad for p in model.model.visual.parameters())
    assert all(p.requires_grad for p in model.model.language_model.parameters())
    with pytest.raises(UserError, match="no parameter's name contains `vision_tower`"):
        freeze(model, ("vision_tower",))
    with pytest.raises(UserError, match="every parameter is frozen"):
        freeze(model, ("model",))


def test_the_processor_pads_on_the_left(tiny_model):
    assert load_processor(tiny_model).tokenizer.padding_side == "left"


def test_orthogonalising_brings_all_singular_values_near_one():
    matrix = torch.randn(6, 10, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.logspace(-1, 1, 10))
    for turned in (matrix, matrix.T):
        values = torch.linalg.svdvals(orthogonal(turned))
        assert values.min() > 0.5
        assert values.max() < 1.3


def test_the_first_muon_step_is_the_orthogonal_direction_scaled_as_documented():
    matrix = torch.nn.Parameter(torch.zeros(4, 9))
    matrix.grad = torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    Muon([matrix], lr=0.1).step()
    assert torch.allclose(matrix.detach(), -0.1 * 0.2 * 3 * orthogonal(matrix.grad), atol=1e-6)


def test_the_parts_of_a_batch_add_up_to_its_gradient():
    weights = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    with TrainingPhase([torch.optim.SGD([weights], lr=0.0)], steps=20, threads=2) as phase:
        loss = phase.step([rows[:1], rows[1:]], lambda part: (part @ weights).sum() * 0.01)
    assert loss == pytest.approx(0.01 * float((rows @ weights.detach()).sum()))
    assert torch.allclose(weights.grad, torch.tensor([0.09, 0.12]))
