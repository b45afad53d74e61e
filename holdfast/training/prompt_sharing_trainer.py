"""TRL's GRPOTrainer, but a prompt and its images go through the model once for all of its rollouts, the probabilities
under which rollouts were sampled are those of the first pass over them, and several processes sample what one would.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from itertools import islice
from typing import Any
from unittest.mock import patch

import torch
from transformers import set_seed
from trl import GRPOTrainer
from trl.trainer import grpo_trainer

from holdfast import group
from holdfast.data.chat import prefilling
from holdfast.models.prompt_sharing import can_share, shared_prompts
from holdfast.models.sampling_together import drawn_as_one
from holdfast.training.sharded import is_sharded
from holdfast.training.vllm_rollouts import MASKED, require_alike

IMAGES = ("pixel_values", "pixel_attention_mask", "image_grid_thw", "image_sizes")
COUNTS = "batch_num_images"
"""What LLaVA-OneVision takes the number of images of each prompt as; of several it cuts none into tiles."""

SAMPLED = "old_per_token_logps"
"""Where TRL keeps a batch's log-probabilities under the weights that sampled it."""


class PromptSharingTrainer(GRPOTrainer):
    """The loss and its gradient are TRL's up to rounding; most of a short rollout's cost is its prompt and image.

    A step's rows are TRL's, and its passes are cut from them by prompt. So what TRL takes over the tokens of a pass,
    and not of rows or of the step, is taken over other rows: bnpo's mean, an entropy bonus, top_entropy_quantile.

    Prompts without images may stand beside others, and the number of images of each reaches models that ask for it.
    With several processes, rows are drawn, shuffled and rewarded by random numbers that one process would have used.
    """

    rollout_difference = 0.1
    """Nats that vLLM's log-probabilities may be from the trainer's, in the mean over tokens."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        if group.size() > 1:
            # TRL has given each process a seed of its own.
            set_seed(self.args.seed)

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        if any("prefill" in prompt[-1] for prompt in prompts):
            processor: Any = self.processing_class
            self.chat_template = prefilling(processor.chat_template)
        ids, images, fields = super()._tokenize_prompts(prompts)
        self._counted = COUNTS in fields
        # TRL writes None for no images, which processors refuse.
        return ids, images and [shown or [] for shown in images], fields

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        with patch.object(grpo_trainer, "shuffle_sequence_dict", self._shuffled):
            return super()._prepare_inputs(generation_batch)

    def _shuffled(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Of a generation, this process's part of one order of the rows of all; an optimizer step has the rows that it
        has in this order, and its passes are cut from these group by group.
        """
        count = len(rows["prompt_ids"])
        drawn = torch.randperm(count * group.size())
        order = drawn[drawn // count == group.number()] % count
        args: Any = self.args
        # Of so many passes in a row, no optimizer step has some alone.
        passes = math.gcd(args.steps_per_generation, args.gradient_accumulation_steps)
        if passes > 1 and self._shares:
            order = order.view(-1, passes * count // args.steps_per_generation).sort().values.flatten()
        return {name: _taken(value, order) for name, value in rows.items()}

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        """With several iterations over a batch, TRL reads it once more with the weights that wrote it. So does the
        first iteration, where no step is taken before it has read all of the batch.
        """
        iterations, self.num_iterations = self.num_iterations, 1
        try:
            scored = super()._generate_and_score_completions(inputs)
            if self.use_vllm:
                self._look_at_vllm(scored)
            return _by_prompt(scored)
        finally:
            self.num_iterations = iterations

    def _look_at_vllm(self, scored: Any) -> None:
        metrics = self._metrics["train"]
        metrics[MASKED].append((scored["importance_sampling_ratio"] == 0).float().mean().item())
        require_alike(metrics, self.rollout_difference)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        """By the first process, which sees all completions: a group may lie on several. They are graded as a whole."""
        completions = [
            [{**said, "content": row["begun"] + said["content"]}]
            for row, [said] in zip(inputs, completions, strict=True)
        ]
        if group.size() == 1:
            return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        rows = group.of_all(list(zip(inputs, prompts, completions, completion_ids_list, strict=True)))
        return super()._calculate_rewards(*map(list, zip(*rows, strict=True)))[: len(rows)]

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        loss = super()._compute_loss(model, inputs)
        if self.num_iterations > 1:
            inputs.setdefault(SAMPLED, self._first_read)
        return loss

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, *rest: Any, **others: Any
    ) -> Any:
        others.pop(COUNTS, None)
        others = _by_prompt(others)
        counts = iter(others.get("num_images") or ())
        shares, width = self._shares, input_ids.shape[1] - logits_to_keep

        def read(labels: Any, **inputs: Any) -> Any:
            given = _seen(inputs)
            if self._counted:
                given[COUNTS] = torch.tensor(list(islice(counts, len(labels))), device=labels.device)
            return model(**given, **({"shift_labels": labels[:, width:]} if shares else {"labels": labels}))

        with shared_prompts(model, width) if shares else nullcontext():
            scored = super()._get_per_token_logps_and_entropies
            found = scored(read, input_ids, attention_mask, logits_to_keep, *rest, **others)
        self._first_read = found[0].detach()
        return found

    def _generate_single_turn(self, *rest: Any, **others: Any) -> Any:
        if self.use_vllm:
            rollouts: Any = self.vllm_generation
            rollouts.at(self.state.global_step)
            return super()._generate_single_turn(*rest, **others)
        if is_sharded(self.model):
            # transformers goes on until all processes are done where it knows that they need each other's parts.
            setattr(self.model, "_is_fsdp_managed_module", True)  # noqa: B010
        with shared_prompts(self.model) if self._shares else nullcontext(), drawn_as_one():
            return super()._generate_single_turn(*rest, **others)

    @property
    def _shares(self) -> bool:
        # Parts of a model are gathered as often on every process, and some have prompts alone to read.
        return not is_sharded(self.model) and can_share(self.model)


def _taken(values: Any, order: torch.Tensor) -> Any:
    """Rows in an order; what a generation has one of stays."""
    if isinstance(values, torch.Tensor):
        return values[order] if values.ndim else values
    return None if values is None else [values[place] for place in order]


def _seen(inputs: dict[str, Any]) -> dict[str, Any]:
    """Without images where there are none: towers crash on what TRL cuts out of a batch for prompts of text alone."""
    pixels, mask = inputs.get("pixel_values"), inputs.get("pixel_attention_mask")
    if pixels is None or (len(pixels) and (mask is None or mask.any())):
        return inputs
    return {name: value for name, value in inputs.items() if name not in IMAGES}


def _by_prompt(fields: dict[str, Any]) -> dict[str, Any]:
    """Idefics' processors lay out one row of images a prompt, which TRL takes for one a row where the numbers agree."""
    mask = fields.get("pixel_attention_mask")
    return fields if mask is None or mask.ndim != 4 else {**fields, "num_images": [1] * len(mask)}
