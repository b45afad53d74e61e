"""Parameters are counted exactly, of published models and of every architecture, whatever of them learns."""

from __future__ import annotations

import pytest
from architectures import VISION_LANGUAGE, made
from published import PARAMETERS, without_weights

from holdfast.config.methods import SFT, Answers
from holdfast.errors import UserError
from holdfast.models.lora import adapted, freeze
from holdfast.models.shape import shape_of

FEW = ("qwen2_5_vl", "smolvlm")
"""Of ten architectures, those that are looked at in every run of the tests."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_models_have_the_parameters_that_their_files_have(name: str) -> None:
    shape = shape_of(without_weights(name))
    assert shape.parameters == PARAMETERS[name]
    assert shape.dense + shape.vision + shape.embedding == shape.parameters


def test_an_adapter_on_all_linear_layers_has_a_row_and_a_column_for_each_rank() -> None:
    """Of Qwen2.5-VL-3B: q and o 2048 × 2048, k and v 2048 × 256, three of 2048 × 11008, in 36 layers."""
    model = without_weights("Qwen/Qwen2.5-VL-3B-Instruct")
    stage = SFT(method="sft", source=Answers(), lora={"r": 32, "target_modules": "all-linear"})
    shape = shape_of(adapted(model, stage, 0))
    each = 2 * (2048 + 2048) + 2 * (2048 + 256) + 3 * (2048 + 11008)
    assert shape.learning == shape.adapter == 36 * 32 * each
    assert shape.parameters == PARAMETERS["Qwen/Qwen2.5-VL-3B-Instruct"] + shape.adapter


def test_all_of_a_model_of_text_learns_unless_a_study_freezes_parts_of_it() -> None:
    model, _ = made("qwen2_5_text")
    shape = shape_of(adapted(model, SFT(method="sft", source=Answers()), 0))
    assert shape.learning == shape.parameters
    assert (shape.vision, shape.vision_layers, shape.layers) == (0, 0, 2)
    with pytest.raises(UserError, match="freeze: no parameter's name contains `vision`"):
        adapted(model, SFT(method="sft", source=Answers(), freeze=("vision",)), 0)


@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in VISION_LANGUAGE]
)
def test_every_architecture_is_its_parts(name: str) -> None:
    model, _ = made(name)
    shape = shape_of(model)
    assert shape.parameters == model.num_parameters()
    assert shape.layers == 2
    assert shape.vision_layers == 2
    assert 0 < shape.vision < shape.parameters
    learning = {}
    for kept in ("vision", "projector", "language"):
        model.requires_grad_(True)
        freeze(model, tuple({"vision", "projector", "language"} - {kept}))
        learning[kept] = shape_of(model).learning
    assert sum(learning.values()) == shape.parameters
    assert learning["vision"] + learning["projector"] == shape.vision
    assert learning["projector"] > 0
