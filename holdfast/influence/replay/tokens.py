"""What each supervised token did: its share of its sample's dot product, by a derivative along W.

⟨∇ log π(y_t), W⟩ of all tokens at once is the derivative of their log-probabilities along W, one forward pass with
tangents for each direction, so there are few: the mean of the prior benchmarks, and the stage's own target.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from holdfast.data.chat import begun
from holdfast.influence.engine.gradients import Gradient, evaluating, selection, shared_completion_logits
from holdfast.influence.replay.attribution import Learned, token_log_likelihood
from holdfast.influence.replay.taught import StepSamples
from holdfast.models.encode import TeacherForced

TOKENS = "tokens.parquet"
TAG = re.compile(r"</?(think|answer)>")


def token_effects(model: Any, part: Learned, directions: Sequence[Gradient]) -> list[np.ndarray]:
    """Of every sample, w_t ⟨∇ log π(y_t), direction⟩ (tokens, directions)."""
    batch = part.batch
    reader = _Reader(model)

    def slope(direction: Gradient) -> Tensor:
        with forward_ad.dual_level():
            moved = {name: forward_ad.make_dual(value, direction[name]) for name, value in weights.items()}
            logits = torch.func.functional_call(reader, {f"model.{name}": one for name, one in moved.items()}, (batch,))
            values = token_log_likelihood(logits, batch, part.temperature)
            return forward_ad.unpack_dual(values).tangent

    weights = {name: value.detach() for name, value in selection(model).items()}
    # No other kernel of attention has derivatives in this direction.
    with evaluating(model), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        slopes = [slope(direction) for direction in directions]
    found = torch.stack(slopes, -1).cpu().double() * part.weights[..., None]
    return [row[mask].numpy() for row, mask in zip(found, batch.mask.cpu(), strict=True)]


class _Reader(torch.nn.Module):
    """Reads completions; prompts that are alike once."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: TeacherForced) -> Tensor:
        return shared_completion_logits(self.model, batch)


def kinds(pieces: Sequence[str], special: Sequence[bool], opened: str = "") -> list[str]:
    """Of each token `format` (a tag), `reasoning`, `answer`, or `end` (a special token).

    `opened` stands before them: what the prompt begins of the answer.
    """
    text = opened + "".join(pieces)
    tags = [(found.start(), found.end(), found[0]) for found in TAG.finditer(text)]
    found, place = [], len(opened)
    for piece, ends in zip(pieces, special, strict=True):
        begin, place = place, place + len(piece)
        if any(start < place and begin < stop for start, stop, _ in tags):
            found.append("format")
        elif ends:
            found.append("end")
        else:
            before = [tag for _, stop, tag in tags if stop <= begin]
            found.append("answer" if before and before[-1] == "<answer>" else "reasoning")
    return found


def write_tokens(out: Path, steps: Mapping[int, Sequence[np.ndarray]], samples: StepSamples) -> None:
    """tokens.parquet: a row for every token of every sample of every step, with its effect on the prior and target.

    Samples are in the ledger's order, and the `place` of each begins at 0; `row` may stand twice in a step.
    """
    columns: dict[str, list[Any]] = {name: [] for name in ("step", "row", "place", "token", "kind")}
    pieces: dict[int, str] = {}
    tokenizer = samples.encoder.processor.tokenizer
    ends = set(tokenizer.all_special_ids)
    for step in sorted(steps):
        for sample in samples.taught[step - 1]:
            ids = sample.completion
            for token in ids:
                if token not in pieces:
                    pieces[token] = tokenizer.decode([token])
            said = [pieces[token] for token in ids]
            columns["step"] += [step] * len(ids)
            columns["row"] += [sample.row] * len(ids)
            columns["place"] += range(len(ids))
            columns["token"] += said
            columns["kind"] += kinds(said, [token in ends for token in ids], begun(samples.questions[sample.question]))
    effects = np.concatenate([row for step in sorted(steps) for row in steps[step]])
    table = pa.table({**columns, "prior": effects[:, 0], "target": effects[:, 1]})
    pq.write_table(table, (out / TOKENS).with_suffix(".partial"))
    (out / TOKENS).with_suffix(".partial").replace(out / TOKENS)
