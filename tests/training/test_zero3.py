"""What holds of ZeRO-3 without DeepSpeed; how it trains, with DeepSpeed, is in test_ranks.py."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from holdfast.config.methods import SFT
from holdfast.data.shards import Question
from holdfast.errors import UserError
from holdfast.training import zero3
from holdfast.training.non_finite import NonFiniteWatch
from holdfast.training.resume import ready_for
from holdfast.training.sharded import require_shardable

STAGE = SFT(method="sft", source="answers")


def test_without_deepspeed_the_command_that_brings_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero3, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"compute\.strategy: zero3 needs DeepSpeed, .* `make zero3`"):
        require_shardable("zero3", "float32", STAGE, None)


def test_float16_is_refused() -> None:
    with pytest.raises(UserError, match=r"zero3 was never tried with float16; set model\.dtype to bfloat16"):
        require_shardable("zero3", "float16", STAGE, None)


def test_prompts_with_images_beside_prompts_without_are_refused() -> None:
    text = Question("t", "", (), "?", "a", "a", "exact", "color")
    shown = text._replace(images=(b"PNG",))
    zero3.require_alike([text, text])
    zero3.require_alike([shown, shown])
    with pytest.raises(UserError, match="needs images in all prompts that a stage learns from, or in none"):
        zero3.require_alike([text, shown])


def test_a_part_of_a_weight_that_is_not_finite_is_seen() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    part: torch.Tensor = torch.tensor([1.0])
    model.weight.ds_tensor = part  # type: ignore[attr-defined]
    model.weight.data = torch.empty(0)
    watch = NonFiniteWatch()
    assert watch.after_step(model)
    part[0] = torch.nan
    assert not watch.after_step(model)


WIDE = """
import os, torch, torch.distributed as dist, deepspeed
from deepspeed.utils import safe_get_full_fp32_param
from holdfast.training.zero3 import learn_from, second_moment, whole
dist.init_process_group("gloo", init_method="file://" + os.environ["MEETING"], rank=0, world_size=1)
start, model = torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 8, bias=False)
model.load_state_dict(start.state_dict())
settings = {"train_batch_size": 1, "bf16": {"enabled": True}, "zero_optimization": {"stage": 3}, "gradient_clipping": 0}
optimizer = torch.optim.AdamW(model.parameters(), lr=0.5, betas=(0.9, 0.99))
engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
rounded = whole(model.weight)
assert torch.equal(rounded, start.weight.bfloat16().float()) and not torch.equal(rounded, start.weight)
learn_from(start, model)
assert torch.equal(whole(model.weight), start.weight)
shown = torch.ones(1, 8, dtype=torch.bfloat16)
engine.backward(engine(shown).sum())
engine.step()
moment, steps = second_moment(type("Wrapper", (), {"optimizer": engine.optimizer}), model.weight)
# The gradient is 1 everywhere.
assert steps == 1 and torch.allclose(moment, torch.full((8, 8), 0.01))
assert (whole(model.weight) - start.weight).abs().max() > 0.4
print("HELD")
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("deepspeed") is None, reason="make test-zero3 has DeepSpeed")
def test_in_half_precision_the_float32_that_learns_begins_where_the_model_did(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WIDE],
        capture_output=True,
        text=True,
        env={**os.environ, "MEETING": str(tmp_path / "meeting"), "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"},
    )
    assert "HELD" in ran.stdout, ran.stderr[-2000:]


def left_by(place: Path, *files: str) -> Path:
    """A checkpoint to resume from."""
    for name in ("rng_state_0.pth", *files):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    return place


def test_a_training_goes_on_with_the_strategy_and_with_zero3_the_number_of_gpus_that_it_had(tmp_path: Path) -> None:
    names = [f"global_step4/bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(2)]
    deepspeed = left_by(tmp_path / "a" / "trainer" / "checkpoint-4", *names)
    fsdp2 = left_by(tmp_path / "b" / "trainer" / "checkpoint-4", "optimizer.bin")
    assert ready_for(deepspeed, 2, "zero3") == deepspeed
    assert ready_for(fsdp2, 4, "fsdp2") == fsdp2
    with pytest.raises(UserError, match=r"compute\.strategy: the interrupted training was zero3, and this is fsdp2"):
        ready_for(deepspeed, 2, "fsdp2")
    with pytest.raises(UserError, match=r"compute\.strategy: the interrupted training was fsdp2, and this is ddp"):
        ready_for(fsdp2, 2, "ddp")
    with pytest.raises(UserError, match=r"compute\.gpus: the interrupted training was fsdp2, which needs two at least"):
        ready_for(fsdp2, 1, "ddp")
    with pytest.raises(UserError, match=r"compute\.gpus: the interrupted training had 2, and zero3 needs as many"):
        ready_for(deepspeed, 4, "zero3")
