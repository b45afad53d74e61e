"""What may predict forgetting: how far each checkpoint is from the base, in what it says and in its weights.

KL is read with both models along the same completions, so at each position it is exact over the vocabulary: forward,
KL(base ‖ now), along completions that the base samples; reverse, KL(now ‖ base), along those that the checkpoint
samples. There is one a prompt, of the evaluation's temperature and the study's seed; distributions are those sampled
from. A prompt's value is the mean over its tokens, a measure the mean over prompts. Prompts are validation questions:
forgetting is measured on test questions, and what predicts it should not have seen them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from holdfast.config.jobs import Predict, Train
from holdfast.config.refs import FileRef
from holdfast.data.chat import rest
from holdfast.data.shards import Question, read_questions
from holdfast.data.training_set import TrainingRow, train_rows
from holdfast.evaluation.drift import Pair, Said, divergence, entropy, token_means
from holdfast.evaluation.generate import Reader, Sampling, generate, score
from holdfast.evaluation.vllm_decoder import decoder_of
from holdfast.journal import Journal
from holdfast.models.encode import Encoded, completion_ids
from holdfast.models.image_feature_cache import ImageFeatures, cached_image_features, tower_digest
from holdfast.models.load import device, load_model, load_processor
from holdfast.models.precision import base_dtype

FILE = "predictors.parquet"
CHUNK = 2**24
"""Values of a parameter that are compared at a time."""


def predictors(job: Predict, out: Path, journal: Journal) -> dict[str, Any]:
    """Write predictors.parquet, one row a checkpoint; returns how many prompts and samples there were."""
    processor = load_processor(job.base)
    decoder = decoder_of(job, processor)
    reader = Reader(processor, job.batch_size, together=True, decoder=decoder)
    dtype, where = base_dtype(job.dtype, job.base), device(job.device)
    base = load_model(job.base, dtype, where).requires_grad_(False)
    images: dict[str, ImageFeatures] = {tower_digest(base): {}}
    with cached_image_features(base, images[tower_digest(base)]):
        asked = {role: _asked(base, reader, job, role) for role in ("target", "prior")}
        questions, tokens = _learned(job, reader.tokenizer)
        common = {"perplexity": perplexity(base, reader, questions, tokens)} if questions else {}
    rows = []
    for number, ref in enumerate(job.models):
        model = load_model(ref, dtype, where).requires_grad_(False)
        found = dict(common)
        with (
            cached_image_features(base, images[tower_digest(base)]),
            cached_image_features(model, images.setdefault(tower_digest(model), {})),
        ):
            for role, said in asked.items():
                compared = _compared(Pair(base, model), reader, job, said)
                found |= {f"{name}_{role}": value for name, value in compared.items()}
        found |= movement(dict(base.named_parameters()), dict(model.named_parameters()))
        # The next one is loaded before this name lets go of it.
        del model
        rows.append({"step": ref.step} | found)
        journal.log(ref.step, {f"predictors/{name}": value for name, value in found.items()})
        journal.progress(number + 1, len(job.models), kl=found["kl_forward_target"])
    pq.write_table(pa.Table.from_pylist(rows), out / FILE)
    counts = {f"prompts_{role}": len(one.prompts) for role, one in asked.items()}
    return counts | {"samples": len(questions)} | (decoder.notes() if decoder is not None else {})


def _asked(base: Any, reader: Reader, job: Predict, role: str) -> Said:
    shards: Sequence[FileRef] = getattr(job, role)
    each = -(-job.prompts // len(shards))
    questions = [question for shard in shards for question in read_questions(shard.path, each)]
    encoded = reader.encode(questions)
    return Said(encoded, _sampled(base, reader, job, encoded))


def _sampled(model: Any, reader: Reader, job: Predict, prompts: list[Encoded]) -> list[list[int]]:
    sampling = Sampling(job.limit, job.temperature, seed=job.seed)
    return [ids for [ids] in generate(model, reader, prompts, sampling)]


def _compared(pair: Pair, reader: Reader, job: Predict, said: Said) -> dict[str, float]:
    """kl_forward along what the base said; kl_reverse, and the model's entropy, along what it says itself."""
    heat, (base, now) = job.temperature, pair
    [forward] = token_means(pair, reader, said, heat, [divergence])
    own = said._replace(completions=_sampled(now, reader, job, said.prompts))
    reverse, unsure = token_means(Pair(now, base), reader, own, heat, [divergence, entropy])
    return {"kl_forward": fmean(forward), "kl_reverse": fmean(reverse), "entropy": fmean(unsure)}


def movement(base: dict[str, Tensor], now: dict[str, Tensor]) -> dict[str, float]:
    """l1 Σ|Δ| and l2 ‖Δ‖ of all weights, spectral (the largest ‖Δ‖₂ of a matrix), and changed_bf16: the share of
    weights that are another number in bfloat16.

    Of Δ in float32 between the models as they are evaluated, adapters merged; sums are in float64. What has more than
    two dimensions is a matrix of its first against all others.
    """
    l1 = l2 = changed = spectral = 0.0
    for name, start in base.items():
        for one, other in zip(now[name].flatten().split(CHUNK), start.flatten().split(CHUNK), strict=True):
            difference = one.float() - other.float()
            l1 += float(difference.abs().sum(dtype=torch.float64))
            l2 += float(difference.double().square().sum())
            changed += int((one.bfloat16() != other.bfloat16()).sum())
        if start.ndim > 1:
            spectral = max(spectral, largest_singular_value((now[name].float() - start.float()).flatten(1)))
    size = sum(start.numel() for start in base.values())
    return {"l1": l1, "l2": math.sqrt(l2), "spectral": spectral, "changed_bf16": changed / size}


def largest_singular_value(matrix: Tensor) -> float:
    """‖matrix‖₂ (rows, columns), from its Gram matrix over the shorter side: tables of words are long."""
    shorter = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    gram = shorter @ shorter.T
    return math.sqrt(max(0.0, float(torch.linalg.eigvalsh(gram.double())[-1])))


def _learned(job: Predict, tokenizer: Any) -> tuple[list[Question], list[list[int]]]:
    """Some samples that the stage learned from: their questions, and their completions' tokens."""
    if job.train is None:
        return [], []
    stage = job.train.stage
    rows = train_rows(job.train) if stage.method == "sft" else _written(job.train, job.written)
    # What was written up to the limit has no end.
    most = int(stage.trainer.get("max_completion_length", job.train.limit)) if stage.method != "sft" else None
    places = np.unique(np.linspace(0, len(rows) - 1, min(job.samples, len(rows))).round().astype(int))
    chosen = [rows[place] for place in places]
    return [row.question for row in chosen], [
        completion_ids(tokenizer, rest(row.question, row.completion or ""), row.ended)[:most] for row in chosen
    ]


def _written(train: Train, written: FileRef | None) -> list[TrainingRow]:
    """Rollouts of a reinforced stage as far as they were logged, those to replayed questions left out."""
    if written is None:
        return []
    known = {question.id: question for question in read_questions(train.questions.path)}
    rows = pq.read_table(written.path, columns=["id", "completion"]).to_pylist()
    return [TrainingRow(known[row["id"]], row["completion"]) for row in rows if row["id"] in known]


def perplexity(base: Any, reader: Reader, questions: list[Question], tokens: list[list[int]]) -> float:
    """exp(−Σ log p / Σ tokens) of all completions together under the base, at temperature 1."""
    scored = score(base, reader, reader.encode(questions), tokens)
    total = sum(float(one.logprobs.double().sum()) for one in scored)
    return float(np.exp(-total / sum(map(len, tokens))))
