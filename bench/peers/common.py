"""The workload of bench/influence.py, linear modules alone, for peers that run in environments of their own.

Arguments: TIME TARGETS [lora]. Everything is measured in one process: a peer's milliseconds a sample, those of an
ordinary batched training pass, and the largest deviation of the peer's dots and norms from float64. Targets are the
gradients of K other samples, which peers compute again in every call; `ours.py` therefore tells what Holdfast takes
with them and without.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

TOKENS, VOCABULARY, ROUNDS = 1024, 8192, 2
ADAPTED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def setting() -> tuple[int, int]:
    """Time and targets from the command line; one thread."""
    torch.set_num_threads(1)
    length, count = map(int, sys.argv[1:3])
    return length, count


def adapted() -> bool:
    """Whether adapters are measured, and not the layers themselves."""
    return sys.argv[3:] == ["lora"]


def build() -> Any:
    """The model, with only the layers' linear modules, or their adapters, trainable."""
    torch.manual_seed(0)
    shape = {"vocab_size": VOCABULARY, "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8}
    model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=8, tie_word_embeddings=True)).eval()
    if adapted():
        return get_peft_model(model, LoraConfig(r=8, target_modules=ADAPTED, init_lora_weights=False)).eval()
    for name, value in model.named_parameters():
        value.requires_grad_("_proj" in name)
    return model


def tracked(model: Any) -> list[str]:
    """Names of the modules that are measured."""
    ends = (".lora_A.default", ".lora_B.default") if adapted() else ("_proj",)
    return [name for name, _ in model.named_modules() if name.endswith(ends)]


def tokens(length: int, count: int) -> tuple[Tensor, Tensor]:
    """Training samples (samples, length) and the targets' samples (count, length)."""
    torch.manual_seed(1)
    return torch.randint(1, VOCABULARY, (max(1, TOKENS // length), length)), torch.randint(
        1, VOCABULARY, (count, length)
    )


def loglik(model: Any, ids: Tensor) -> Tensor:
    """Σ log π of the last three quarters of each sample (samples,)."""
    asked = ids.shape[1] // 4
    logits = model(ids, use_cache=False, logits_to_keep=ids.shape[1] - asked + 1).logits[:, :-1]
    return (logits.gather(-1, ids[:, asked:, None]).squeeze(-1) - logits.logsumexp(-1)).sum(1)


class Likelihood(nn.Module):
    """Gives each sample's log-likelihood as its prediction."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return loglik(self.model, ids)


def gradient(model: Any, ids: Tensor) -> Tensor:
    """Of one sample (1, length), flat."""
    parameters = [value for value in model.parameters() if value.requires_grad]
    parts = torch.autograd.grad(loglik(model, ids).sum(), parameters)
    return torch.cat([part.flatten() for part in parts])


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, the median of rounds after one that does not count, and what that one gave."""
    found, taken = call(), []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken), found


def report(name: str, model: Any, peer: Callable[[], tuple[Tensor | None, Tensor]]) -> None:
    """Print a row; the peer gives ‖g‖² (samples,), if it can, and dots (samples, targets)."""
    length, count = setting()
    train, queries = tokens(length, count)
    ordinary = build()

    def plain() -> None:
        ordinary.zero_grad()
        loglik(ordinary, train).sum().backward()

    mine, (norms2, dots) = timed(peer)
    base, _ = timed(plain)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    double = build().double()
    targets = [gradient(double, query[None]) for query in queries]
    single = gradient(double, train[:1])
    scale = torch.stack([single.norm() * target.norm() for target in targets])
    worst = ((dots[0].double() - torch.stack([single @ target for target in targets])).abs() / scale).max()
    if norms2 is not None:
        worst = max(worst, (norms2[0].double() / single.square().sum() - 1).abs() / 2)
    each = 1000 / len(train)
    space = "LoRA" if adapted() else "linear"
    row = [name, space, length, count, f"{base * each:.1f}", f"{mine * each:.1f}", f"{mine / base:.2f}", f"{worst:.0e}"]
    print(f"| {' | '.join(map(str, row))} | {memory:.0f} |")
