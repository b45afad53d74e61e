"""Each mitigation does what its formula says, and nothing at strength 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from holdfast.benchmarks.catalog import prior_questions
from holdfast.config.jobs import Sample, Train
from holdfast.config.methods import OwnRollouts
from holdfast.config.mitigations import KL
from holdfast.config.refs import FileRef, ModelRef
from holdfast.data.shards import write_questions
from holdfast.data.training_set import replay_rows
from holdfast.evaluation.sampling import sample
from holdfast.influence.engine.gradients import batch_gradient
from holdfast.journal import Journal, read_lines
from holdfast.models.encode import completion_ids, encode, teacher_forced
from holdfast.models.load import load_model, load_processor
from holdfast.models.lora import adapted
from holdfast.training.callback import StageCallback
from holdfast.training.dataset import order, with_old
from holdfast.training.penalties import L2, completion_logits, distance, fisher, right_rows
from holdfast.training.sft import Collator
from holdfast.training.stage import build
from holdfast.training.token_weights import token_weights

SFT = {"max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "lr_scheduler_type": "constant"}
GRPO = SFT | {"max_steps": 2, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 16}


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> FileRef:
    """Training questions of a prior benchmark."""
    path = tmp_path_factory.mktemp("old") / "prior_train-color.parquet"
    write_questions(path, prior_questions("color", 12, 0, "train"))
    return FileRef(path=path, digest="old")


@pytest.fixture(scope="session")
def job(train_job: Callable, old: FileRef) -> Callable[..., Train]:
    """A training with mitigations that has old questions."""

    def make(method: str = "sft", trainer: dict[str, Any] | None = None, **given: Any) -> Train:
        kind = {"method": "sft", "source": "answers"} if method == "sft" else {"method": "grpo"}
        whole = (SFT if method == "sft" else GRPO) | (trainer or {})
        made = train_job({**kind, "freeze": ["vis"], "trainer": whole, **given})
        return made.model_copy(update={"priors": (old,)})

    return make


@pytest.fixture(scope="session")
def weights(
    run_stage: Callable, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Train], dict[str, torch.Tensor]]:
    """What a training ends with."""

    def run(job: Train) -> dict[str, torch.Tensor]:
        out = run_stage(job, tmp_path_factory.mktemp("stage"))
        return load_file(max((out / "checkpoints").iterdir()) / "model.safetensors")

    return run


@pytest.fixture(scope="session")
def plain(job: Callable, weights: Callable) -> dict[str, torch.Tensor]:
    return weights(job())


def built(made: Train, out: Path) -> Any:
    processor = load_processor(made.start)
    return build(made, processor, out, StageCallback(out, Journal(out), lambda *_: {}, processor))


def moved(now: dict[str, torch.Tensor], then: dict[str, torch.Tensor]) -> float:
    return float(sum((now[name] - then[name]).square().sum() for name in now) ** 0.5)


def test_strength_zero_is_plain_training(job: Callable, weights: Callable, plain: dict) -> None:
    idle = {"replay": {"share": 0}, "kl": {"weight": 0, "prompts": "prior"}, "l2": 0, "ewc": {"weight": 0}}
    now = weights(job(**idle))
    assert all(torch.equal(now[name], value) for name, value in plain.items())
    even = weights(job(talr={"tau": 1e9}))
    assert all(torch.allclose(even[name], value, atol=1e-6) for name, value in plain.items())


STRONG = {
    "l2": {"l2": 1e4},
    "ewc": {"ewc": {"weight": 1e4, "samples": 4}},
    "kl on target prompts": {"kl": {"weight": 100}},
    "kl on prior prompts": {"kl": {"weight": 100, "prompts": "prior", "to": "base", "batch": 2}},
}


@pytest.mark.parametrize("given", STRONG.values(), ids=STRONG)
def test_a_strong_penalty_pulls_back_to_the_start(
    given: dict, job: Callable, run_stage: Callable, tmp_path: Path
) -> None:
    plain = {"optim": "sgd", "learning_rate": 1e-3, "max_steps": 2, "max_grad_norm": 0.0}
    out = run_stage(job(trainer=plain, **given), tmp_path / "stage")
    name = f"train/penalty/{next(iter(given))}"
    logged = [line["metrics"][name] for line in read_lines(out / "metrics.jsonl") if name in line.get("metrics", {})]
    # Nothing pulls where the training begins; after a step something does, far above rounding.
    assert logged[0] == pytest.approx(0, abs=1e-5)
    assert logged[-1] > 1e-3


def test_l2_and_ewc_by_hand() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))
    terms = L2(model, 3.0), L2(model, 3.0, {"weight": torch.tensor([[0.5, 4.0]])})
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.5, 1.0]]))
    assert terms[0](model, {}).item() == pytest.approx(3 / 2 * (0.25 + 1))
    assert terms[1](model, {}).item() == pytest.approx(3 / 2 * (0.5 * 0.25 + 4 * 1))
    [gradient] = torch.autograd.grad(terms[1](model, {}), [model.weight])
    assert gradient.tolist() == [[pytest.approx(3 * 0.5 * 0.5), pytest.approx(-3 * 4 * 1)]]


def test_fisher_is_the_mean_square_of_the_influence_engines_gradient(tiny_model: ModelRef, old: FileRef) -> None:
    model, processor = load_model(tiny_model), load_processor(tiny_model)
    rows = right_rows([old], 2)
    found = fisher(model, rows, Collator(processor))
    gradients = []
    for row in rows:
        ids = completion_ids(processor.tokenizer, row.completion or "")
        pad = processor.tokenizer.pad_token_id
        gradients.append(
            batch_gradient(model, teacher_forced(encode(processor, [row.question]), [ids], pad, model.device))
        )
    name = max(gradients[0], key=lambda one: gradients[0][one].norm())
    expected = torch.stack([one[name].square() for one in gradients]).mean(0)
    torch.testing.assert_close(found[name], expected.reshape(found[name].shape), rtol=1e-3, atol=1e-9)


def test_the_distance_of_two_tokens_by_hand() -> None:
    then, now = torch.log(torch.tensor([[0.5, 0.5], [0.9, 0.1]])), torch.log(torch.tensor([[0.25, 0.75], [0.9, 0.1]]))
    forward = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    reverse = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5)
    assert distance(then, now, KL(weight=1)).item() == pytest.approx(forward / 2, rel=1e-5)
    assert distance(then, now, KL(weight=1, direction="reverse")).item() == pytest.approx(reverse / 2, rel=1e-5)
    warm = np.sqrt([0.25, 0.75]) / np.sqrt([0.25, 0.75]).sum()
    expected = 4 * (0.5 * np.log(0.5 / warm)).sum() / 2
    assert distance(then, now, KL(weight=1, temperature=2)).item() == pytest.approx(expected, rel=1e-5)


def test_token_weights_by_hand() -> None:
    shares = np.exp([-0.5, -1.0, -1.5])
    assert token_weights(torch.tensor([1.0, 2.0, 3.0]), "median").tolist() == pytest.approx(3 * shares / shares.sum())


def test_the_loss_of_weighted_tokens_is_their_sum(job: Callable, tmp_path: Path) -> None:
    trainer = built(job(talr={}), tmp_path)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    count = int((batch["labels"] != -100).sum())
    loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=count)
    logits = completion_logits(trainer.model, batch)
    chances = logits.softmax(-1).gather(1, batch["labels"][batch["labels"] != -100][:, None])[:, 0].double()
    losses = -chances.log()
    weights = chances ** (1 / losses.median())
    torch.testing.assert_close(loss.double(), (weights * losses).sum() / weights.sum(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "given",
    [{"l2": 20.0}, pytest.param({"l2": 20.0, "talr": {"tau": 1e9}}, marks=pytest.mark.slow)],
    ids=["plain", "weighted tokens"],
)
def test_a_penalty_counts_once_a_step_however_many_passes_it_has(given: dict, job: Callable, weights: Callable) -> None:
    descent = {"optim": "sgd", "learning_rate": 1e-2, "max_grad_norm": 0.0}
    batches = ({"per_device_train_batch_size": 4 // n, "gradient_accumulation_steps": n} for n in (1, 2))
    whole, parts = (weights(job(trainer=descent | batch, **given)) for batch in batches)
    free = weights(job(trainer=descent))
    assert moved(whole, parts) < 0.01 * moved(whole, free)


@pytest.mark.parametrize(("share", "old_rows"), [(0.25, 10), (0.1, 4), (0.9, 20)])
def test_old_rows_are_dealt_out_evenly(share: float, old_rows: int) -> None:
    places = np.array(with_old((7, old_rows), 40, share, 3))
    turns = places >= 7
    assert [int(turns[:n].sum()) for n in (8, 20, 40)] == [int(np.floor(n * share + 1e-9)) for n in (8, 20, 40)]
    assert places[~turns].tolist() == order(7, int((~turns).sum()), 3)
    assert max(Counter(places[turns].tolist()).values()) <= -(-int(turns.sum()) // old_rows)


def test_no_share_leaves_the_order_as_it_was() -> None:
    assert with_old((7, 4), 40, 0, 3) == with_old((7, 0), 40, 0.5, 3) == order(7, 40, 3)


def test_supervised_replay_learns_right_answers_to_old_questions(job: Callable, tmp_path: Path) -> None:
    made = job(replay={"share": 0.5})
    trainer = built(made, tmp_path)
    rows = [trainer.train_dataset[place]["row"] for place in range(len(trainer.train_dataset))]
    assert [row.old for row in rows] == [False, True] * 6
    assert all(row.completion == row.question.reference for row in rows)


def test_reinforced_replay_answers_old_questions_itself(job: Callable, run_stage: Callable, tmp_path: Path) -> None:
    made = job("grpo", replay={"share": 0.5}, kl={"weight": 0.1, "prompts": "prior", "batch": 2})
    out = run_stage(made, tmp_path / "stage")
    ids = pq.read_table(out / "completions.parquet")["id"].to_pylist()
    assert sum(name.startswith("color-") for name in ids) == len(ids) / 2
    assert any("train/penalty/kl" in line.get("metrics", {}) for line in read_lines(out / "metrics.jsonl"))


def test_own_answers_are_kept_when_they_are_right(
    job: Callable, old: FileRef, schooled: ModelRef, tmp_path: Path
) -> None:
    made = job(replay={"share": 0.5, "answers": "own"})
    source = OwnRollouts(per_prompt=1, prompts=12, keep="all")
    asked = Sample(
        source=source,
        model=schooled,
        base=made.base,
        data=made.data,
        questions=made.questions,
        replayed=(old,),
        limit=16,
    )
    sample(asked, tmp_path, Journal(tmp_path))
    replayed = FileRef(path=tmp_path / "samples.parquet", digest="")
    rows = replay_rows(made.model_copy(update={"replayed": replayed}))
    said = pq.read_table(replayed.path).to_pylist()
    assert [(row.question.id, row.completion) for row in rows] == [(row["id"], row["completion"]) for row in said]


def test_only_attention_or_gates_learn(tiny_model: ModelRef, job: Callable) -> None:
    for part, modules in (
        ("attention", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("gate-up", {"gate_proj", "up_proj"}),
    ):
        model = adapted(load_model(tiny_model), job(learn=[part]).stage, 0)
        learning = [name for name, value in model.named_parameters() if value.requires_grad]
        assert {name.split(".")[-2] for name in learning} == modules
        assert not any("visual" in name for name in learning)
