"""An adapter is kept apart from those before it: where it begins, by its penalty, and after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from trainings import logged, trained

from holdfast.config.jobs import Train
from holdfast.config.refs import ModelRef
from holdfast.errors import UserError
from holdfast.models.load import load_model, load_processor
from holdfast.models.lora import adapted
from holdfast.models.orthogonal import READS, Overlap, read_before, turn_away

LORA = {"r": 4, "target_modules": "all-linear"}
TRAINER = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2}


@pytest.fixture(scope="session")
def job(train_job: Callable, tiny_model: ModelRef) -> Callable[..., Train]:
    def make(start: ModelRef = tiny_model, keep: float = 1000, seed: int = 0, **given: Any) -> Train:
        stage = {"method": "sft", "source": "answers", "lora": LORA, "trainer": TRAINER, **given}
        return train_job(stage, start, keep=keep, seed=seed)

    return make


@pytest.fixture(scope="session")
def twice(
    job: Callable, tiny_model: ModelRef, run_stage: Callable, tmp_path_factory: pytest.TempPathFactory
) -> ModelRef:
    """The tiny model after two stages with an adapter each."""
    ref = tiny_model
    for number in (1, 2):
        out = run_stage(job(ref, seed=number), tmp_path_factory.mktemp("before"))
        ref = ModelRef(path=str(out / "checkpoints" / "step-000004"), digest=f"{number}", step=4, adapter_of=ref)
    return ref


def penalties(out: Path) -> list[float]:
    return logged(out, "train/penalty/orthogonal")


def overlap(adapter: dict[str, torch.Tensor], *before: Path) -> float:
    """Σ (A · A'ᵀ)² by hand."""
    earlier = [load_file(path / "adapter_model.safetensors") for path in before]
    reads = [name for name in adapter if READS in name]
    assert len(reads) > 5
    return float(sum((adapter[name] @ one[name].T).square().sum() for name in reads for one in earlier))


def test_overlap_and_what_is_left_of_it_by_hand(tmp_path: Path) -> None:
    def model() -> Any:
        torch.manual_seed(0)
        return get_peft_model(torch.nn.Sequential(torch.nn.Linear(3, 2)), LoraConfig(r=1, target_modules=["0"]))

    before: Any = model()
    before.base_model.model[0].lora_A.default.weight.data = torch.tensor([[2.0, 0.0, 0.0]])
    before.save_pretrained(tmp_path)
    ref = ModelRef(path=str(tmp_path), digest="", adapter_of=ModelRef(path="base", digest=""))
    now = model()
    rows = now.base_model.model[0].lora_A.default.weight
    rows.data = torch.tensor([[3.0, 4.0, 0.0]])
    term = Overlap(now, 0.5, ref)
    assert term(now, {}).item() == pytest.approx(0.5 * (3 * 2) ** 2)
    [gradient] = torch.autograd.grad(term(now, {}), [rows])
    assert gradient.tolist() == [[pytest.approx(0.5 * 2 * 6 * 2), 0, 0]]
    turn_away(now, ref)
    assert rows.tolist() == [[pytest.approx(0, abs=1e-6), 4, 0]]
    rows.data = torch.tensor([[3.0, 0.0, 0.0]])
    with pytest.raises(UserError, match=r"adapters before fill all 3 inputs of base_model\.model\.0; lower lora\.r"):
        turn_away(now, ref)


def test_it_is_apart_from_all_adapters_before(job: Callable, twice: ModelRef) -> None:
    made = job(twice, orthogonal={})
    model = adapted(load_model(twice), made.stage, 0, twice)
    parts = read_before(model, twice)
    assert {len(others) for _, _, others in parts} == {2 * LORA["r"]}
    assert max((rows @ others.T).abs().max().item() for _, rows, others in parts) < 1e-5
    plain = adapted(load_model(twice), made.stage, 0)
    assert max((rows @ others.T).abs().max().item() for _, rows, others in read_before(plain, twice)) > 0.1


@pytest.mark.slow
def test_strength_zero_is_plain_and_a_strong_penalty_keeps_apart(
    job: Callable, twice: ModelRef, tmp_path: Path
) -> None:
    assert twice.adapter_of is not None
    before = Path(twice.path), Path(twice.adapter_of.path)
    plain = trained(job(twice), tmp_path / "plain")
    idle = trained(job(twice, orthogonal={"weight": 0, "initial": False}), tmp_path / "idle")
    assert all(torch.equal(idle[name], value) for name, value in plain.items())
    pulled = trained(job(twice, orthogonal={"weight": 50, "initial": False}), tmp_path / "pulled")
    assert overlap(pulled, *before) < 0.9 * overlap(plain, *before)
    told = penalties(tmp_path / "pulled")
    assert told[0] > told[-1]
    begun = trained(job(twice, orthogonal={}), tmp_path / "begun")
    assert penalties(tmp_path / "begun")[0] == pytest.approx(0, abs=1e-6)
    assert overlap(begun, *before) < 0.1 * overlap(plain, *before)


@pytest.mark.slow
def test_an_interrupted_training_ends_with_the_same_bits(job: Callable, twice: ModelRef, tmp_path: Path) -> None:
    made = job(twice, keep=1, orthogonal={})
    whole = trained(made, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(made, tmp_path / "broken", broken_at=3)
    resumed = trained(made, tmp_path / "broken")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    assert penalties(tmp_path / "broken") == penalties(tmp_path / "whole")


def test_modules_without_an_adapter_before_are_refused(job: Callable, twice: ModelRef) -> None:
    made = job(twice, orthogonal={})
    assert twice.adapter_of is not None
    first = twice.adapter_of.adapter_of
    assert first is not None
    with pytest.raises(UserError, match="no module has an adapter that had one before"):
        adapted(load_model(first), made.stage, 0, first)


def test_three_stages_of_adapters_go_on_from_each_other(twice: ModelRef, tiny_model: ModelRef) -> None:
    assert twice.whole == tiny_model
    assert load_processor(twice).tokenizer.get_vocab() == load_processor(tiny_model).tokenizer.get_vocab()
