"""An evaluation that cannot fit is refused before anything trains; what it takes is added up by hand."""

from __future__ import annotations

from typing import Any

import pytest
from published import without_weights

from holdfast.config.study import Study
from holdfast.errors import UserError
from holdfast.models.lora import adapted
from holdfast.models.shape import Shape, shape_of
from holdfast.stages.asking import Asking, asking, batch_memory, require_asking
from holdfast.stages.fit import Lengths, Need, Room, need_of, require_memory, shape_for
from holdfast.stages.needs import Batch

THREE, WEIGHTS = "Qwen/Qwen2.5-VL-3B-Instruct", 2 * 3_754_622_976
GB = 1_000_000_000
QUESTIONS = Batch(0, 1500, 512, patches=5120, generated=32)
"""A picture of 1,280 tokens of four patches each, with 220 tokens of text."""
TOKEN = 2 * (2 * 11008 + 4 * 2048)
"""Bytes of a token that a layer reads."""
PIXELS = 32 * 5120 * 1536 * 4
TOWER = 32 * 5120 * 2 * (4 * 1280 + 2 * 3420)


def study(evaluation: dict[str, Any] | None = None, **more: Any) -> Study:
    arm = {"method": "sft", "source": "answers", "lora": {"r": 32, "target_modules": "all-linear"}}
    model = {"path": THREE, "dtype": "bfloat16"}
    about = {"name": "s", "arms": {"a": [arm]}, "model": model, "evaluation": evaluation or {}}
    return Study.model_validate(about | more)


@pytest.fixture(scope="module")
def shape() -> Shape:
    return shape_of(adapted(without_weights(THREE), study().arms["a"][0], 0))


def test_a_batch_takes_its_images_and_what_writes_reads_or_scores_at_most(shape: Shape) -> None:
    """Of every row, written: 36 layers' keys and values of 2,012 tokens, the prompt read, three copies of logits."""
    row = 2012 * 36 * 2 * 256 * 2 + 1500 * TOKEN + 3 * 151936 * 4
    assert batch_memory(shape, 2, QUESTIONS) == PIXELS + 32 * row == 6_338_396_160
    # By vLLM, nothing is written here: the tower takes most, with the images a second time.
    assert batch_memory(shape, 2, QUESTIONS, written=False) == 2 * PIXELS + TOWER == 5_932_318_720
    # Without images, prompts and as many tokens as have 2²⁷ logits, of each twelve bytes.
    text = QUESTIONS._replace(patches=0)
    assert batch_memory(shape, 2, text, written=False) == (32 * 1500 + 883) * TOKEN + 883 * 151936 * 12
    # A completion of 2,048 tokens has more logits than that, and is read alone.
    long = text._replace(completion=2048, prompt=100)
    assert batch_memory(shape, 2, long, written=False) == 2148 * TOKEN + 2048 * 151936 * 12


def test_the_exact_drift_takes_the_base_beside_the_checkpoint(shape: Shape) -> None:
    """3.75 billion parameters × 2 bytes each; an adapter is merged."""
    batch = batch_memory(shape, 2, QUESTIONS)
    both, alone = Asking(WEIGHTS, WEIGHTS, 0, batch), Asking(WEIGHTS, 0, 0, batch)
    assert both.total == 21_356_888_064
    assert asking(study(), shape, QUESTIONS, 80 * GB) == both
    assert asking(study({"drift": "sampled"}), shape, QUESTIONS, 80 * GB) == alone
    # pass@64 draws the 64 samples of a prompt at once.
    wide = asking(study({"drift": "sampled", "pass_at": (1, 64)}), shape, QUESTIONS, 80 * GB)
    assert wide.batch == 2 * batch


def test_vllm_writes_in_its_share_in_place_of_a_batch(shape: Shape) -> None:
    found = asking(study({"vllm": {"gpu_memory_utilization": 0.5}}), shape, QUESTIONS, 80 * GB)
    assert found == Asking(WEIGHTS, WEIGHTS, 40 * GB, 2 * PIXELS + TOWER)


def test_two_models_that_do_not_fit_are_refused_with_what_holds_one(shape: Shape) -> None:
    exact, both = study(), study(predictors={})
    found = asking(exact, shape, QUESTIONS, 0)
    with pytest.raises(
        UserError, match=r"the base beside it take 15 GB .* has 12 GB; set evaluation.drift: sampled or"
    ):
        require_asking(exact, found, 12 * GB)
    with pytest.raises(UserError, match=r"has 12 GB; set evaluation\.drift: sampled and leave out predictors or"):
        require_asking(both, found, 12 * GB)
    with pytest.raises(UserError, match=r"evaluation: a checkpoint takes 7\.5 GB and this machine has 6\.0 GB"):
        require_asking(study({"drift": "sampled"}), found._replace(base=0), 6 * GB)
    [told] = require_asking(exact, found, 20 * GB)
    assert "may take 21 GB and this machine has 20 GB; if it fails, lower evaluation.batch_size" in told
    assert told.endswith("or set evaluation.drift: sampled")
    assert require_asking(exact, found, 22 * GB) == []


def need(evaluation: dict[str, Any]) -> Need:
    found = study(evaluation)
    [stage] = found.arms["a"]
    adapter = shape_for(adapted(without_weights(THREE), stage, 0), None)
    return need_of(stage, found, adapter, Lengths(410, 110, 1296, 1500, 5120), card=24 * GB)


def test_questions_along_the_way_are_counted_beside_what_trains() -> None:
    """Beside weights, an adapter's in float32, and its moments lies a batch; nothing of an adapter is copied."""
    wide, narrow = (need({"max_new_tokens": 512, "batch_size": rows}) for rows in (100, 32))
    memory = narrow.memory
    assert memory.measuring == narrow.asking.batch == 6_338_396_160
    assert memory.step < memory.total == memory.weights + memory.optimizer + memory.measuring
    assert require_memory("arms.a.0", narrow, Room(24 * GB, None)) == []
    [told] = require_memory("arms.a.0", wide, Room(24 * GB, None))
    assert "to ask validation questions along the way may take 28 GB" in told
    assert "lower evaluation.batch_size" in told
