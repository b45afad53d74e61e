"""On-policy distillation: the model samples, and learns at each of its tokens what a teacher would have written there.

The loss is the mean over the tokens of a step of KL(model ‖ teacher), exact over the vocabulary and without a gradient
through what was sampled; docs/mitigations.md. Only teachers differ: another model, or the model itself, or a moving
average of it, that is shown a right completion of the question (SDFT). Model and teacher read by one function, so a
teacher that is the model teaches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from holdfast import group
from holdfast.config.jobs import Train
from holdfast.config.methods import Demonstration, Distill
from holdfast.config.mitigations import KL
from holdfast.data.shards import Question
from holdfast.data.training_set import TrainingRow
from holdfast.errors import UserError
from holdfast.models.encode import encode, teacher_forced
from holdfast.models.load import load_model
from holdfast.models.lora import adapted
from holdfast.models.precision import learn_in_float32, weight_dtype
from holdfast.training.penalties import completion_logits, distance
from holdfast.training.prompt_sharing_trainer import PromptSharingTrainer
from holdfast.training.sft import labelled
from holdfast.training.sharded import whole

ASKED = "question_ids"
LOSS = KL(weight=1, direction="reverse")
SHOWN = """{prompt}

This is an example for a response to the question:
{reference}

Now answer with a response of your own."""
"""After the prompt of arXiv 2601.19897."""
STATE = "teacher.safetensors"


class DistillationTrainer(PromptSharingTrainer):
    """Samples as a reinforced training does; rewards are only logged."""

    teacher: Any
    processor: Any
    asked: Mapping[str, Question]
    """What the model is asked, by id."""
    shown: Mapping[str, Question]
    """What the teacher is asked."""

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)
        # Groups that earn the same teach as much as others.
        self._metrics["train"].pop("frac_reward_zero_std", None)
        return output | {ASKED: [row["id"] for row in inputs]}

    def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
        rows = zip(inputs["completion_ids"], inputs["completion_mask"], strict=True)
        completions = [ids[mask.bool()].tolist() for ids, mask in rows]
        with self.accelerator.autocast():
            with torch.no_grad():
                then = completion_logits(self.teacher, self._batch(self.shown, inputs[ASKED], completions))
            now = completion_logits(model, self._batch(self.asked, inputs[ASKED], completions))
        # Models of a family fill their tables of tokens up to different widths.
        width = min(then.shape[-1], now.shape[-1])
        return distance(then[:, :width], now[:, :width], LOSS) * len(now) / self._tokens_of_a_step(inputs)

    def _tokens_of_a_step(self, inputs: Any) -> Any:
        """Of one process's share, as TRL counts them: where a generation serves several steps, each of these alike."""
        args: Any = self.args
        steps = args.steps_per_generation / self.current_gradient_accumulation_steps
        return inputs["num_items_in_batch"] / (self.accelerator.num_processes * steps)

    def _batch(self, questions: Mapping[str, Question], names: Sequence[str], completions: list[list[int]]) -> Any:
        own = list(dict.fromkeys(names))
        prompts = dict(zip(own, encode(self.processor, [questions[name] for name in own]), strict=True))
        pad = self.processor.tokenizer.pad_token_id
        forced = teacher_forced([prompts[name] for name in names], completions, pad, torch.device("cpu"))
        return {name: value.to(self.accelerator.device) for name, value in labelled(forced).items()}


class MovingAverage(TrainerCallback):
    """Teacher ← (1 − rate) · teacher + rate · model after each step, of what learns; a checkpoint keeps it.

    Of several processes each has the whole teacher, also where the model lies in parts.
    """

    def __init__(self, teacher: Any, model: Any, rate: float) -> None:
        learning = {name for name, value in model.named_parameters() if value.requires_grad}
        self.averages = {name: value for name, value in teacher.named_parameters() if name in learning}
        self.rate = rate

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Go on from a checkpoint."""
        if state.global_step:
            saved = load_file(_checkpoint(args, state) / STATE)
            for name, average in self.averages.items():
                average.data.copy_(saved[name])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Follow the model, whose parameters are others once it lies in parts."""
        learned = dict(model.named_parameters())
        for name, average in self.averages.items():
            average.data.lerp_(whole(learned[name]).to(average.dtype), self.rate)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Join the checkpoint."""
        if group.number() == 0:
            saved = {name: average.data.contiguous() for name, average in self.averages.items()}
            save_file(saved, _checkpoint(args, state) / STATE)


def taught(trainer: DistillationTrainer, job: Train, processor: Any, rows: Sequence[TrainingRow]) -> None:
    """Give the trainer its teacher.

    Raises:
        UserError: a question has no right completion to show to it.
    """
    assert isinstance(job.stage, Distill)
    settings, model = job.stage.teacher, trainer.model
    loaded = weight_dtype(job), torch.device(trainer.accelerator.device)
    questions = {row.question.id: row.question for row in rows}
    trainer.processor, trainer.asked, trainer.shown = processor, questions, questions
    if isinstance(settings, Demonstration):
        trainer.shown = {name: demonstrated(question) for name, question in questions.items()}
        # No copy of the model in memory: TRL has wrapped its forward pass, and a copy would read with its weights.
        trainer.teacher = learn_in_float32(adapted(load_model(job.start, *loaded), job.stage, job.seed, job.start))
        if settings.ema:
            trainer.add_callback(MovingAverage(trainer.teacher, model, settings.ema))
    else:
        ref = job.base if job.teacher is None else job.teacher
        trainer.teacher = learn_in_float32(load_model(ref, *loaded))
    trainer.teacher.requires_grad_(False).eval()


def demonstrated(question: Question) -> Question:
    """The question with a right completion of it in its prompt."""
    if not question.reference:
        raise UserError(f"teacher: question {question.id} has no right completion to show; name another teacher")
    return question._replace(prompt=SHOWN.format(prompt=question.prompt, reference=question.reference))


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
