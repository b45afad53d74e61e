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
from holdfast.stages.needs import Tracing

GB = 1e9
CARD, SMALL = (Room(int(size * GB), int(128 * GB)) for size in (80, 24))
TRAINER = {"max_steps": 100, "per_device_train_batch_size": 4}
LORA = {"r": 32, "target_modules": "all-linear"}
THREE = "Qwen/Qwen2.5-VL-3B-Instruct"


def need(stage: dict[str, Any], beside: dict[str, Any] | None = None, **study: Any) -> Need:
    """Of a stage of Qwen2.5-VL-3B on a GPU, on prompts of 600 tokens, beside other arms."""
    arm = {"method": "sft", "trainer": TRAINER, **stage}
    if arm["method"] == "sft":
        arm["source"] = "answers"
    found = Study(name="s", arms={"a": [arm], **(beside or {})}, model={"path": THREE, "dtype": "bfloat16"}, **study)
    [one] = found.arms["a"]
    model = adapted(without_weights(THREE), one, 0)
    return need_of(one, found, shape_for(model, found.influence), Lengths(600, 100, 1296), card=int(80e9))


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


def test_of_a_model_in_parts_the_first_rank_has_room_for_all_of_it_while_it_measures() -> None:
    """Eight ranks hold an eighth of 4 bytes a parameter and of 8 a learning one; the first has 2 bytes of every one
    beside it, and 64 completions: keys and values of 900 tokens, 600 read at once, three copies of logits, and pictures
    of 1,296 patches. Alone it has the copy too, of what learns in float32."""
    sharded = {"compute": {"gpus": 8, "strategy": "fsdp2"}, "evaluation": {"batch_size": 64, "max_new_tokens": 300}}
    stage = {"trainer": TRAINER | {"per_device_train_batch_size": 8}}
    one, eight = need(stage, evaluation=sharded["evaluation"]), need(stage, **sharded)
    shape, memory = eight.shape, eight.memory
    row = 900 * 36 * 2 * 256 * 2 + 600 * (2 * 11008 + 4 * 2048) * 2 + 3 * 151936 * 4 + 1296 * 1536 * 4
    assert memory.measuring == one.memory.measuring == 2 * shape.parameters + 64 * row
    assert memory.total == 4 * shape.parameters // 8 + 8 * shape.learning // 8 + memory.measuring
    assert one.memory.total == one.memory.step > one.memory.weights + one.memory.optimizer + one.memory.measuring


def test_deepspeed_keeps_float32_beside_what_computes_and_gathers_all_to_sample() -> None:
    """Of eight ranks each has an eighth of 2 bytes a parameter and of 4 a learning one; to sample, 2 of every one."""
    stage = {"method": "grpo", "trainer": {"max_steps": 100, "per_device_train_batch_size": 64}}
    found = {kind: need(stage, compute={"gpus": 8, "strategy": kind}) for kind in ("fsdp2", "zero3")}
    shape, fsdp2, zero3 = found["zero3"].shape, found["fsdp2"].memory, found["zero3"].memory
    assert zero3.weights == (2 * shape.parameters + 4 * shape.learning) // 8
    assert (zero3.gradients, zero3.optimizer, zero3.copies) == (fsdp2.gradients, fsdp2.optimizer, fsdp2.copies)
    assert zero3.generation - 2 * shape.parameters == fsdp2.generation - fsdp2.copies


PAPERED = {"layers": ["layers.17.", "layers.35."], "dtype": "bfloat16"}


def test_influence_counts_the_activations_and_logits_of_its_largest_batch() -> None:
    """Of each token 36 layers × (2 · (6 · 2048 + 4 · 256 + 4 · 11008) + 16 · 2048) bytes, from layer 17 on 19, and 16
    bytes a logit: of the longest sample, 700 tokens, 101 of them with logits."""
    layer, tokens = 2 * (6 * 2048 + 4 * 256 + 4 * 11008) + 16 * 2048, 2100
    of = {"batch_tokens": tokens, "dtype": "bfloat16"}
    adapter, late = need({"lora": LORA}, influence=of).influence, need({}, influence=of | PAPERED).influence
    assert adapter is not None
    assert late is not None
    tower = 3 * 1296 * (2 * (6 * 1280 + 4 * 3420) + 16 * 1280)
    assert adapter.activations == tokens * 36 * layer + tower
    assert late.activations == tokens * 19 * layer + tower
    assert adapter.head == late.head == 3 * 101 * 151936 * 16
    alone = need({"lora": LORA}, influence=of | {"batch_tokens": 1}).influence
    every = need({"lora": LORA}, influence=of | {"batch_tokens": None}).influence
    assert (alone and alone.head, every and every.head) == (101 * 151936 * 16, 32 * 101 * 151936 * 16)


def test_a_batch_of_influence_that_may_not_fit_is_told_before_anything_trains() -> None:
    wide = need({"lora": LORA}, influence={"batch_tokens": 8192, "dtype": "bfloat16", "memory_gb": 6})
    [told] = require_memory("arms.a.0", wide, SMALL)
    assert "influence: a batch of arms.a.0's samples may take" in told
    assert "lower influence.batch_tokens" in told
    narrow = need({"lora": LORA}, influence={"batch_tokens": 1024, "dtype": "bfloat16", "memory_gb": 6})
    assert require_memory("arms.a.0", narrow, SMALL) == []


def test_influence_in_all_of_three_billion_parameters_is_refused_and_in_two_layers_or_parts_it_fits() -> None:
    """Fourteen benchmarks' halves alone are 28 × 3.1 billion × 4 bytes = 346 GB."""
    with pytest.raises(
        UserError, match=r"influence: the model and what arms\.a\.0's samples are held against take .*influence\.layers"
    ):
        require_memory("arms.a.0", need({}, influence={"probes": 0}), CARD)
    assert traced(PAPERED).fixed < 80 * GB
    parts = {"memory_gb": 40, "dtype": "bfloat16"}
    # The table of tokens alone, which is one block, takes more.
    assert traced(parts).host > 80 * GB
    parts["layers"] = ["layers."]
    assert traced(parts).fixed < 12 * GB
    assert traced(parts).host == 40 * GB


def test_gradients_on_the_host_are_held_against_the_hosts_memory_and_a_batch_against_the_cards() -> None:
    parts = {"memory_gb": 40, "dtype": "bfloat16", "layers": ["layers."], "batch_tokens": 4096}
    whole = need({}, influence=parts)
    assert require_memory("arms.a.0", whole, Room(int(80 * GB), int(128 * GB))) == []
    with pytest.raises(UserError, match=r"influence\.memory_gb: .* 40 GB of the host's memory, .* 32 GB for each"):
        require_memory("arms.a.0", whole, Room(int(80 * GB), int(32 * GB)))


def traced(settings: dict[str, Any]) -> Tracing:
    found = need({}, influence=settings).influence
    assert found is not None
    return found


def test_half_precision_halves_what_is_kept_and_moments_are_counted() -> None:
    kept = need({}, evaluation={"keep": 0.5})
    halved = need({}, evaluation={"keep": 0.5, "keep_dtype": "bfloat16"})
    traced = need({}, evaluation={"keep": 0.5}, influence={"probes": 0})
    assert kept.disk.kept == 2 * 4 * kept.shape.parameters == 2 * halved.disk.kept
    assert traced.disk.kept - kept.disk.kept == 2 * 4 * kept.shape.learning


def test_a_ledger_needs_every_step_on_the_disk_and_fits_with_an_adapter() -> None:
    """Of a hundred steps three copies each, and of nine benchmarks gradients at seven nodes, between, and a mean."""
    settings = {"layers": ["layers.35."], "dtype": "bfloat16", "batch_tokens": 1400, "ledger": {"nodes": 2}}
    kept = {"keep": 0.25}
    adapter, whole = (need(stage, evaluation=kept, influence=settings) for stage in ({"lora": LORA}, {}))
    learning, benchmarks = adapter.shape.learning, 9
    assert adapter.disk.running == 4 * learning * (3 * 101 + benchmarks * (2 * (4 + 2) + 2))
    assert adapter.ledger is not None
    assert adapter.ledger.fixed == 4 * (adapter.shape.parameters + (benchmarks + 2) * learning) < 20 * GB
    assert adapter.ledger.head == 2 * 101 * 151936 * 16
    assert require_memory("arms.a.0", adapter, CARD) == []
    with pytest.raises(
        UserError, match=r"influence\.ledger: to account for arms\.a\.0 takes .* leave influence\.ledger out"
    ):
        require_memory("arms.a.0", whole, CARD)


def test_a_ledger_that_another_arm_chooses_by_is_counted_where_it_is_made() -> None:
    chooses = {"by": "ledger", "drop": 0.2, "arm": "a"}
    other = [{"method": "sft", "source": "answers", "lora": LORA, "trainer": TRAINER, "select": chooses}]
    alone, chosen = need({"lora": LORA}), need({"lora": LORA}, {"b": other})
    wished = need({"lora": LORA}, influence={"ledger": {}})
    assert alone.ledger is None
    assert chosen.ledger == wished.ledger
    assert chosen.disk.running > alone.disk.running


def test_a_ledgers_tokens_and_a_kl_penalty_take_gradients_beside_the_benchmarks() -> None:
    grpo = {"method": "grpo", "lora": LORA, "trainer": {"max_steps": 8}}
    by_beta = grpo | {"trainer": {"max_steps": 8, "beta": 0.1}}
    by_kl = grpo | {"kl": {"weight": 0.1, "direction": "reverse"}}
    plain, tokens, beta, kl = (
        need(stage, influence={"ledger": {"tokens": wanted}})
        for wanted, stage in ((False, grpo), (True, grpo), (True, by_beta), (True, by_kl))
    )
    held = [one.ledger.held for one in (plain, tokens, beta, kl) if one.ledger is not None]
    assert [(one - held[0]) / (4 * plain.shape.learning) for one in held] == [0, 2, 3, 3]


def test_a_card_without_bfloat16_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda emulated: emulated)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda where: "Tesla V100")
    arms = {"a": [{"method": "sft", "source": "answers"}]}
    half = Study(name="s", arms=arms, model={"path": THREE, "dtype": "bfloat16"})
    with pytest.raises(UserError, match=r"model\.dtype: Tesla V100 has no bfloat16; set it to float16"):
        require_card(half, torch.device("cuda"))
    require_card(half, torch.device("cpu"))
    require_card(Study(name="s", arms=arms), torch.device("cuda"))
