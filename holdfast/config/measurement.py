"""When and how models are evaluated, and how forgetting is traced to samples."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from holdfast.config.base import Config
from holdfast.config.schedule import When

SET_HERE = frozenset(
    {
        "model",
        "tokenizer",
        "revision",
        "dtype",
        "seed",
        "load_format",
        "logprobs_mode",
        "trust_remote_code",
        "gpu_memory_utilization",
        "tensor_parallel_size",
        "mm_processor_kwargs",
    }
)
"""Arguments of vLLM's that follow from the study."""


class Vllm(Config):
    """Completions by vLLM, in an environment that `make vllm` makes."""

    difference: PositiveFloat = 0.1
    """How many nats vLLM's log-probabilities may be from the model's, in the mean over the tokens of what is
    compared: of each thing that is asked, the first batch. Beyond, the stage stops."""
    gpu_memory_utilization: float = Field(default=0.5, gt=0, lt=1)
    """vLLM's share of the card: its own copy of the weights, and what it keeps of prompts. The model that is measured
    lies beside it."""
    arguments: dict[str, Any] = {}
    """More of vLLM's arguments (`EngineArgs`), under its names."""

    @field_validator("arguments")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(value.keys() & SET_HERE):
            raise ValueError(f"{taken[0]} is set by holdfast; remove it")
        return value


class Evaluation(Config):
    """When and how models are measured."""

    keep: When = "log"
    """When a training keeps a checkpoint: every so many steps; below 1, every share of them; `log`, at an eighth, a
    quarter and a half. The end is always kept."""
    keep_dtype: Literal["float32", "bfloat16"] = "float32"
    """What kept weights are stored in. bfloat16 takes half of the disk and rounds what is evaluated, sampled and built
    on; a training that goes on after an interruption has its own, unrounded."""
    every: When = "log"
    """Which of the kept checkpoints are evaluated, in the same words: those nearest to such steps."""
    validation: PositiveInt = 32
    """Validation questions of the target and of each prior benchmark, at most. Alarms and the choice of checkpoints go
    by these; test questions are for reporting only."""
    batch_size: PositiveInt = 100
    max_new_tokens: PositiveInt = 96
    """Limit of a completion, in tokens. Answers that it cuts off are counted as `…/cut`."""
    pass_at: tuple[PositiveInt, ...] = ()
    """Also sample the target and report the chance that one of k samples is right, for these k."""
    temperature: PositiveFloat = 1.0
    """Of the samples for pass@k and drift; answers are greedy."""
    drift_prompts: PositiveInt = 64
    """Target prompts on which the drift KL is measured."""
    drift: Literal["exact", "sampled"] = "exact"
    """`exact` reads the base beside the model, which takes memory for both; `sampled` estimates the KL from the base's
    samples alone, mostly too low by a tenth or so."""
    vllm: Vllm | None = None
    """Decode what evaluations, sources, replay and predictors ask for by vLLM: `{}` for the defaults. Probabilities are
    the model's own either way, and what a training or influence asks along the way is decoded by transformers."""


class Predictors(Config):
    """What is measured beside forgetting, at every evaluated checkpoint, because it may predict it."""

    prompts: PositiveInt = 64
    """Validation prompts of the targets together, and as many of the prior benchmarks together: the first of each,
    rounded up to equal numbers."""
    samples: PositiveInt = 64
    """Completions that a stage learned from, evenly spread over them, whose perplexity under the base is measured."""


LEAST_PROMPTS = 6


"""Of fewer, no paired difference can be told from chance: the least p of a sign test is 2^(1 − prompts)."""


class LedgerSettings(Config):
    """How closely the ledger of a training follows what happened."""

    error: PositiveFloat = 0.05
    """Where intervals miss more than this share of a benchmark's changes, its gradient is taken at further steps."""
    nodes: int = Field(default=24, ge=0)
    """At most so many of them, for each benchmark."""
    tokens: bool = True
    """Also split every sample's effect on the prior, and on the target, into those of its tokens."""


class Influence(Config):
    """How forgetting is traced to training samples, along every stage."""

    samples: PositiveInt = 48
    """Training samples of each source; the same first prompts for all arms. For GRPO, rollouts of the checkpoint, in
    whole groups, of six prompts at least."""
    every: When = "log"
    """Which of the kept checkpoints are traced, in the words of evaluation.keep; the beginning always is."""
    questions: int = Field(default=16, ge=2)
    """Validation questions of each benchmark, at most, whose gradients make a target; odd and even ones are two
    disjoint halves."""
    batch_size: PositiveInt = 32
    batch_tokens: PositiveInt | None = None
    """Also at most so many tokens in a batch, padding and images included; a longer sample is a batch of its own."""
    layers: tuple[str, ...] = ()
    """Measure in parameters only whose name contains one of these words, for example `layers.30.`; by default in all
    that learn. A model of billions needs this, `memory_gb` or an adapter."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the passes compute in; sums and what lies between two checkpoints are in float32 always."""
    memory_gb: PositiveFloat | None = None
    """Gradients that samples are held against take so much memory at most, in GB: they lie in the host's memory, and
    what does not fit is measured block after block of layers, each with passes of its own. Changes no result."""
    probes: int = Field(default=1, ge=0)
    """Random-logit probes of the norm of the eNTK, on each side; 0 for none."""
    ledger: LedgerSettings | None = None
    """Also write down what each sample of each step of every stage did, in all that learns: `{}` for the defaults.
    `layers`, `dtype` and `memory_gb` do not bound it."""
