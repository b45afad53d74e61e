"""vLLM's share of the card is counted where it lies, and refused where it cannot hold the model."""

from __future__ import annotations

from typing import Any

import pytest
from published import without_weights

from holdfast.config.study import Study
from holdfast.errors import UserError
from holdfast.models.lora import adapted
from holdfast.stages.fit import Adapted, Lengths, Need, need_of, shape_for
from holdfast.stages.vllm_fit import require_evaluation_share, require_share

THREE = "Qwen/Qwen2.5-VL-3B-Instruct"
CARD = 80_000_000_000
SMALL = 24_000_000_000


@pytest.fixture(autouse=True)
def _vllm_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.models.vllm_engine.find_spec", lambda name: name)
    monkeypatch.setattr("holdfast.models.vllm_engine.version", lambda name: "0.31.0")


@pytest.fixture(scope="module")
def three() -> Adapted:
    return shape_for(adapted(without_weights(THREE), study().arms["a"][0], 0), None)


def study(evaluation: dict[str, Any] | None = None, **trainer: Any) -> Study:
    arm = {"method": "grpo", "lora": {"r": 32, "target_modules": "all-linear"}, "trainer": {"max_steps": 8, **trainer}}
    model = {"path": THREE, "dtype": "bfloat16"}
    return Study(name="s", arms={"a": [arm]}, model=model, evaluation=evaluation or {})


def need(three: Adapted, **trainer: Any) -> Need:
    found = study(**trainer)
    return need_of(found.arms["a"][0], found, three, Lengths(600, 100, 1296), CARD)


def test_vllm_takes_its_share_in_the_place_of_generation_and_asleep_of_that_alone(three: Adapted) -> None:
    """0.3 of 80 GB by TRL's default."""
    plain, awake = need(three).memory, need(three, use_vllm=True).memory
    asleep = need(three, use_vllm=True, vllm_enable_sleep_mode=True).memory
    served = need(three, use_vllm=True, vllm_mode="server").memory
    assert plain.generation > 0
    assert [(one.vllm, one.generation) for one in (awake, asleep, served)] == [(24e9, 24e9), (0, 24e9), (0, 0)]
    assert awake.fixed - plain.fixed == 24e9
    step = plain.fixed + plain.copies + plain.activations + plain.head
    assert awake.step == 24e9 + step
    assert asleep.step == max(step, plain.weights + plain.optimizer + 24e9)
    assert served.step == step
    # While validation questions are asked, a share that is not given back is there beside them.
    assert awake.total == plain.weights + plain.optimizer + 24e9 + plain.measuring > awake.step


def test_a_share_that_holds_no_weights_is_refused(three: Adapted) -> None:
    """3.75 billion parameters × 2 bytes, and 0.3 of 24 GB."""

    def required(card: int, **trainer: Any) -> None:
        found = study(**trainer)
        require_share("arms.a.0", found.arms["a"][0], found, three.shape, card)

    required(CARD, use_vllm=True)
    required(SMALL, use_vllm=True, vllm_gpu_memory_utilization=0.4)
    required(SMALL, use_vllm=True, vllm_mode="server")
    required(0, use_vllm=True)
    with pytest.raises(
        UserError,
        match=r"arms\.a\.0\.trainer\.vllm_gpu_memory_utilization: .* is 7\.2 GB, .* alone take 7\.5 GB; raise it",
    ):
        required(SMALL, use_vllm=True)


def test_an_evaluations_share_leaves_room_for_the_models_beside_it(three: Adapted) -> None:
    """Of 24 GB a half, and 7.5 GB beside it, or twice that for the exact drift."""

    def required(card: int, share: float = 0.5, drift: str = "exact") -> None:
        require_evaluation_share(study({"vllm": {"gpu_memory_utilization": share}, "drift": drift}), three.shape, card)

    required(CARD)
    required(SMALL, drift="sampled")
    with pytest.raises(
        UserError, match=r"evaluation\.vllm\..* \(12 GB\) and the model and the base .* \(15 GB\) .* sampled"
    ):
        required(SMALL)
    with pytest.raises(
        UserError, match=r"evaluation\.vllm\.gpu_memory_utilization: .* is 4\.8 GB, .* 7\.5 GB; raise it"
    ):
        required(SMALL, 0.2)
