"""How long a training is, in which order it sees its data, and where it is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config.methods import GRPO, SFT
from holdfast.config.refs import file_digest
from holdfast.errors import UserError
from holdfast.training.arguments import OURS, length, trainer_config
from holdfast.training.dataset import order
from holdfast.training.resume import last_intact, mark_complete

LIMIT = 96
MACHINE = {"output_dir": "unused", "use_cpu": True, "bf16": False, "fp16": False}


def sft(**trainer: Any) -> SFT:
    return SFT(method="sft", source="answers", trainer=trainer)


def grpo(**trainer: Any) -> GRPO:
    return GRPO(method="grpo", trainer=trainer)


@given(st.integers(1, 20), st.integers(0, 70), st.integers(0, 3))
def test_the_order_shows_every_row_once_before_any_twice(rows: int, wanted: int, seed: int) -> None:
    wanted = max(1, wanted)
    places = order(rows, wanted, seed)
    assert len(places) == wanted
    for start in range(0, wanted, rows):
        part = places[start : start + rows]
        assert len(set(part)) == len(part)
    assert places == order(rows, wanted, seed)


def test_max_steps_and_epochs_lead_to_the_same_length() -> None:
    batch = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    by_steps = trainer_config(sft(max_steps=9, **batch), LIMIT, MACHINE)
    by_epochs = trainer_config(sft(num_train_epochs=3, **batch), LIMIT, MACHINE)
    assert length(by_steps, 24) == length(by_epochs, 24) == (9, 72, 1)


def test_grpo_takes_its_prompts_by_generation_and_resumes_between_generations() -> None:
    batch = {"per_device_train_batch_size": 8, "num_generations": 4, "steps_per_generation": 2, "num_iterations": 2}
    config = trainer_config(grpo(max_steps=10, **batch), LIMIT, MACHINE)
    assert length(config, 24) == (10, 3 * 4, 4)


def test_a_learning_rate_that_yaml_reads_as_text_is_a_number() -> None:
    assert trainer_config(sft(learning_rate="1e-4"), LIMIT, MACHINE).learning_rate == 1e-4


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (sft(max_step=3), "trainer.max_step is no argument of TRL's SFTConfig; did you mean max_steps?"),
        (sft(learning_rate="fast"), "trainer.learning_rate: `fast` is no number"),
        (sft(max_steps="many"), "trainer.max_steps: `many` is no number"),
        (sft(hub_model_id="x"), "trainer.hub_model_id is set by holdfast"),
        (grpo(per_device_train_batch_size=6, num_generations=4), "must be divisible by num_generations"),
        *((sft(**{name: 1}), f"trainer.{name} is set by holdfast") for name in OURS),
    ],
)
def test_arguments_that_trl_or_holdfast_cannot_take_are_refused_by_name(stage: SFT | GRPO, words: str) -> None:
    with pytest.raises(UserError) as refused:
        trainer_config(stage, LIMIT, MACHINE)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "broken", ["trainer/checkpoint-20/optimizer.pt", "trainer/checkpoint-20/complete.json", "kept"]
)
@pytest.mark.parametrize("how", ["cut off", "a bit flipped"])
def test_the_newest_checkpoint_whose_every_byte_is_as_written_is_taken(tmp_path: Path, broken: str, how: str) -> None:
    assert last_intact(tmp_path) is None
    kept = tmp_path / "kept"
    kept.write_bytes(b"x" * 100)
    for step in (10, 20, 30):
        place = tmp_path / "trainer" / f"checkpoint-{step}"
        place.mkdir(parents=True)
        (place / "optimizer.pt").write_bytes(b"x" * 100)
        if step != 30:
            mark_complete(place, 1.0, {"kept": file_digest(kept)} if step == 20 else {})
    content = bytearray((tmp_path / broken).read_bytes())
    content[50] ^= 4
    (tmp_path / broken).write_bytes(content[:-1] if how == "cut off" else content)
    assert last_intact(tmp_path) == tmp_path / "trainer" / "checkpoint-10"
    assert [path.name for path in (tmp_path / "trainer").iterdir()] == ["checkpoint-10"]
