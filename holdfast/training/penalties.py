"""Terms that keep a training near what it began with, added to the loss of either trainer; docs/mitigations.md.

Each is a mean over tokens, or a sum over weights, of one pass, so it counts once an optimizer step however many passes
a step has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from holdfast.config.jobs import Train
from holdfast.config.mitigations import KL
from holdfast.config.refs import FileRef
from holdfast.data.shards import read_questions
from holdfast.data.training_set import TrainingRow
from holdfast.models.load import load_model
from holdfast.models.orthogonal import Overlap
from holdfast.models.precision import study_dtype
from holdfast.training.dataset import order
from holdfast.training.sft import IGNORED, Collator

Term = Callable[[Any, Mapping[str, Any]], Tensor]
"""From the model and a batch of the trainer's to what is added to its loss."""


def add_penalties(trainer: Any, job: Train, processor: Any) -> None:
    """Add what the stage asks for to the loss that the trainer computes, and log it as `penalty/NAME`."""
    terms = _terms(trainer, job, Collator(processor))
    if not terms:
        return
    compute_loss = trainer.compute_loss

    def penalized(model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
        batch = dict(inputs)
        loss = compute_loss(model, inputs, *given, **named)
        for name, term in terms.items():
            value = term(model, batch)
            trainer._metrics["train"][f"penalty/{name}"].append(value.item())
            loss = loss + value / (trainer.current_gradient_accumulation_steps if _is_scaled(trainer, named) else 1)
        return loss

    trainer.compute_loss = penalized


def _is_scaled(trainer: Any, named: Mapping[str, Any]) -> bool:
    """Whether the passes' losses add up to the step's; otherwise transformers divides each by the passes of a step."""
    if trainer.loss_is_scaled_for_ga is not None:
        return bool(trainer.loss_is_scaled_for_ga)
    counted = trainer.model_accepts_loss_kwargs and named.get("num_items_in_batch") is not None
    return bool(counted or trainer.compute_loss_func is not None)


def _terms(trainer: Any, job: Train, collate: Collator) -> dict[str, Term]:
    """Those of weight above 0; KL on a reinforced stage's own rollouts is TRL's."""
    stage, model = job.stage, trainer.model
    terms: dict[str, Term] = {}
    if stage.l2:
        terms["l2"] = L2(model, stage.l2)
    if stage.ewc is not None and stage.ewc.weight:
        shards = [shard for kind in stage.ewc.of for shard in {"prior": job.priors, "targets": job.earlier}[kind]]
        if shards:
            rows = right_rows(shards, -(-stage.ewc.samples // len(shards)))
            terms["ewc"] = L2(model, stage.ewc.weight, fisher(model, rows, collate))
    if stage.orthogonal is not None and stage.orthogonal.weight:
        terms["orthogonal"] = Overlap(model, stage.orthogonal.weight, job.start)
    if stage.kl is not None and stage.kl.weight and not (stage.method == "grpo" and stage.kl.prompts == "target"):
        prior = PriorBatches(trainer, job, stage.kl, collate) if stage.kl.prompts == "prior" else None
        terms["kl"] = Distance(_reference(job, stage.kl, model.device), stage.kl, prior)
    return terms


def _reference(job: Train, settings: KL, where: torch.device) -> Any:
    """The model that the distance is measured from, a frozen copy."""
    ref = job.base if settings.to == "base" else job.start
    return load_model(ref, study_dtype(job), where).requires_grad_(False)


def right_rows(shards: Sequence[FileRef], count: int) -> list[TrainingRow]:
    """The first questions of every shard with their right completions."""
    questions = [question for shard in shards for question in read_questions(shard.path, count)]
    return [TrainingRow(question, question.reference) for question in questions]


class L2:
    """weight / 2 · Σ F (θ − θ*)² over what learns; F is 1, or as given."""

    def __init__(self, model: Any, weight: float, fisher: dict[str, Tensor] | None = None) -> None:
        self.weight, self.fisher = weight, fisher
        self.start = {name: value.detach().clone() for name, value in _learning(model)}

    def __call__(self, model: Any, batch: Mapping[str, Any]) -> Tensor:
        squares = {name: (value - self.start[name]).square() for name, value in _learning(model)}
        weighed = [square if self.fisher is None else self.fisher[name] * square for name, square in squares.items()]
        return self.weight / 2 * torch.stack([one.sum() for one in weighed]).sum()


def fisher(model: Any, rows: Sequence[TrainingRow], collate: Collator) -> dict[str, Tensor]:
    """Diagonal of the empirical Fisher information: the mean over samples of (∂ log π(completion) / ∂θ)²."""
    total = {name: torch.zeros_like(value) for name, value in _learning(model)}
    for row in rows:
        batch = _on(collate([{"row": row}]), model.device)
        labels = batch["labels"]
        likelihood = -torch.nn.functional.cross_entropy(
            completion_logits(model, batch).float(), labels[:, 1:][labels[:, 1:] != IGNORED], reduction="sum"
        )
        names, values = zip(*_learning(model), strict=True)
        for name, gradient in zip(names, torch.autograd.grad(likelihood, values, allow_unused=True), strict=True):
            if gradient is not None:
                total[name] += gradient.square() / len(rows)
    return total


class PriorBatches:
    """Prior benchmarks' training questions with their right completions: another batch every step."""

    def __init__(self, trainer: Any, job: Train, settings: KL, collate: Collator) -> None:
        self.trainer, self.collate, self.size = trainer, collate, settings.batch
        self.rows = right_rows(job.priors, 10**6)
        self.places = order(len(self.rows), self.size * trainer.args.max_steps, [job.seed, 2])

    def __call__(self) -> dict[str, Tensor]:
        first = self.size * self.trainer.state.global_step
        rows = [self.rows[place] for place in self.places[first : first + self.size]]
        return _on(self.collate([{"row": row} for row in rows]), self.trainer.model.device)


class Distance:
    """Mean KL a token of completions between the model and another one, over the whole vocabulary."""

    def __init__(self, reference: Any, settings: KL, batches: Callable[[], Mapping[str, Tensor]] | None) -> None:
        self.reference, self.settings, self.batches = reference, settings, batches

    def __call__(self, model: Any, batch: Mapping[str, Any]) -> Tensor:
        asked = batch if self.batches is None else self.batches()
        with torch.no_grad():
            then = completion_logits(self.reference, asked)
        return self.settings.weight * distance(then, completion_logits(model, asked), self.settings)


def distance(then: Tensor, now: Tensor, settings: KL) -> Tensor:
    """Of logits (tokens, vocabulary): T² · mean KL(then/T ‖ now/T), or the other way round."""
    one, other = ((logits.float() / settings.temperature).log_softmax(-1) for logits in (then, now))
    if settings.direction == "reverse":
        one, other = other, one
    return settings.temperature**2 * (one.exp() * (one - other)).sum(-1).mean()


def completion_logits(model: Any, batch: Mapping[str, Any]) -> Tensor:
    """Logits (tokens, vocabulary) that predict a batch's labels."""
    labels = batch["labels"]
    learned = labels != IGNORED
    kept = int(labels.shape[1] - learned.any(0).nonzero()[0]) + 1
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "use_cache")}
    logits = model(**inputs, logits_to_keep=kept, use_cache=False).logits[:, :-1]
    return logits[learned[:, 1 - kept :]]


def _learning(model: Any) -> list[tuple[str, Tensor]]:
    return [(name, value) for name, value in model.named_parameters() if value.requires_grad]


def _on(batch: Mapping[str, Tensor], where: torch.device) -> dict[str, Tensor]:
    return {name: value.to(where) for name, value in batch.items()}
