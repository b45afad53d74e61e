"""What cannot fit is refused with what it takes and what there is; what may not fit is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from published import without_weights

from holdfast.config.study import Study
from holdfast.errors import UserError
from holdfast.models.lora import adapted
from holdfast.stages.fit import Lengths, Need, Room, need_of, require_card, require_memory, shape_for

GB = 1e9
CARD, SMALL = (Room(int(size * GB), int(size * GB)) for size in (80, 24))
TRAINER = {"max_steps": 100, "per_device_train_batch_size": 4}
LORA = {"r": 32, "target_modules": "all-linear"}
THREE = "Qwen/Qwen2.5-VL-3B-Instruct"


def need(stage: dict[str, Any], **study: Any) -> Need:
    """Of a stage of Qwen2.5-VL-3B on a GPU, on prompts of 600 tokens."""
    arm = {"method": "sft", "trainer": TRAINER, **stage}
    if arm["method"] == "sft":
        arm["source"] = "answers"
    found = Study(name="s", arms={"a": [arm]}, model={"path": THREE, "dtype": "bfloat16"}, **study)
    [one] = found.arms["a"]
    model = adapted(without_weights(THREE), one, 0)
    return need_of(one, found, shape_for(model, found.influence), Lengths(600, 100, 1296), on_gpu=True)


def test_everything_fits_eighty_gigabytes_and_is_refused_on_twenty_four_where_an_adapter_fits() -> None:
    whole, adapter = need({}), need({"lora": LORA})
    assert require_memory("arms.a.0", whole, CARD) == []
    with pytest.raises(UserError, match=r"arms\.a\.0: weights, .* take 52 GB and this machine has 24 GB; train an ada"):
        require_memory("arms.a.0", whole, SMALL)
    assert require_memory("arms.a.0", adapter, SMALL) == []
    large = {"lora": LORA, "trainer": {**TRAINER, "per_device_train_batch_size": 400}}
    [told] = require_memory("arms.a.0", need(large), SMALL)
    assert "if it fails, lower per_device_train_batch_size" in told


def test_large_models_compute_activations_again_unless_told_otherwise() -> None:
    plain = need({"trainer": {**TRAINER, "gradient_checkpointing": False}})
    assert need({}).memory.activations < plain.memory.activations / 5


def test_influence_in_all_of_three_billion_parameters_is_refused_and_in_two_layers_or_parts_it_fits() -> None:
    """Fourteen benchmarks' halves alone are 28 × 3.1 billion × 4 bytes = 346 GB."""
    with pytest.raises(
        UserError, match=r"influence: what arms\.a\.0's samples are held against takes .*influence\.layers"
    ):
        require_memory("arms.a.0", need({}, influence={"probes": 0}), CARD)
    few = {"layers": ["layers.17.", "layers.35."], "dtype": "bfloat16"}
    assert need({}, influence=few).influence < 80 * GB
    parts = {"memory_gb": 40, "dtype": "bfloat16"}
    # The table of tokens alone, which is one block, takes more.
    assert need({}, influence=parts).influence > 80 * GB
    parts["layers"] = ["layers."]
    assert need({}, influence=parts).influence < 50 * GB
    assert require_memory("arms.a.0", need({}, influence=parts), Room(int(80 * GB), int(208 * GB))) == []


def test_half_precision_halves_what_is_kept_and_moments_are_counted() -> None:
    kept = need({}, evaluation={"keep": 0.5})
    halved = need({}, evaluation={"keep": 0.5, "keep_dtype": "bfloat16"})
    traced = need({}, evaluation={"keep": 0.5}, influence={"probes": 0})
    assert kept.disk.kept == 2 * 4 * kept.shape.parameters == 2 * halved.disk.kept
    assert traced.disk.kept - kept.disk.kept == 2 * 4 * kept.shape.learning


def test_a_ledger_needs_every_step_on_the_disk_and_fits_with_an_adapter() -> None:
    """Of a hundred steps three copies each, and of nine benchmarks gradients at seven nodes, between, and a mean."""
    settings = {"layers": ["layers.35."], "dtype": "bfloat16", "probes": 0, "ledger": {"nodes": 2}}
    kept = {"keep": 0.25}
    adapter, whole = (need(stage, evaluation=kept, influence=settings) for stage in ({"lora": LORA}, {}))
    learning, benchmarks = adapter.shape.learning, 9
    assert adapter.disk.running == 4 * learning * (3 * 101 + benchmarks * (2 * (4 + 2) + 2))
    assert adapter.ledger == 4 * (adapter.shape.parameters + (benchmarks + 2) * learning) < 20 * GB
    assert require_memory("arms.a.0", adapter, CARD) == []
    with pytest.raises(
        UserError, match=r"influence\.ledger: to account for arms\.a\.0 takes .* leave influence\.ledger out"
    ):
        require_memory("arms.a.0", whole, CARD)


def test_a_ledgers_tokens_and_a_kl_penalty_take_gradients_beside_the_benchmarks() -> None:
    grpo = {"method": "grpo", "lora": LORA, "trainer": {"max_steps": 8}}
    by_beta = grpo | {"trainer": {"max_steps": 8, "beta": 0.1}}
    by_kl = grpo | {"kl": {"weight": 0.1, "direction": "reverse"}}
    plain, tokens, beta, kl = (
        need(stage, influence={"ledger": {"tokens": wanted}})
        for wanted, stage in ((False, grpo), (True, grpo), (True, by_beta), (True, by_kl))
    )
    more = [(one.ledger - plain.ledger) / (4 * plain.shape.learning) for one in (tokens, beta, kl)]
    assert more == [2, 3, 3]


def test_a_card_without_bfloat16_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda emulated: emulated)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda where: "Tesla V100")
    arms = {"a": [{"method": "sft", "source": "answers"}]}
    half = Study(name="s", arms=arms, model={"path": THREE, "dtype": "bfloat16"})
    with pytest.raises(UserError, match=r"model\.dtype: Tesla V100 has no bfloat16; set it to float16"):
        require_card(half, torch.device("cuda"))
    require_card(half, torch.device("cpu"))
    require_card(Study(name="s", arms=arms), torch.device("cuda"))
