"""kronfluence without curvature: K queries against all samples, and self-scores in a second pass over them.

Install: uv venv kron && uv pip install -p kron/bin/python kronfluence torch transformers peft
Run, from bench/peers: PYTHONPATH=. kron/bin/python kron.py TIME TARGETS [lora]
"""

from __future__ import annotations

import logging
import tempfile
from typing import Any

from common import build, loglik, report, setting, tokens, tracked
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from torch import Tensor
from torch.utils.data import Dataset


class Likelihood(Task):
    """Sums of log-likelihoods on both sides."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names

    def compute_train_loss(self, batch: Tensor, model: Any, sample: bool = False) -> Tensor:
        return loglik(model, batch).sum()

    def compute_measurement(self, batch: Tensor, model: Any) -> Tensor:
        return loglik(model, batch).sum()

    def get_influence_tracked_modules(self) -> list[str]:
        return self.names


class Rows(Dataset):
    def __init__(self, ids: Tensor) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Tensor:
        return self.ids[index]


def main() -> None:
    logging.disable(logging.WARNING)
    length, count = setting()
    train, queries = (Rows(ids) for ids in tokens(length, count))
    model = build()
    task = Likelihood(tracked(model))
    model = prepare_model(model, task)
    analyzer = Analyzer("a", model, task, cpu=True, output_dir=tempfile.mkdtemp(), disable_tqdm=True)
    identity = FactorArguments(strategy="identity")
    analyzer.fit_all_factors("f", train, per_device_batch_size=1, factor_args=identity, overwrite_output_dir=True)
    arguments = ScoreArguments(damping_factor=0.0)
    whole = {"per_device_train_batch_size": len(train), "overwrite_output_dir": True, "score_args": arguments}

    def peer() -> tuple[Tensor, Tensor]:
        analyzer.compute_pairwise_scores("p", "f", queries, train, per_device_query_batch_size=count, **whole)
        analyzer.compute_self_scores("s", "f", train, **whole)
        dots = analyzer.load_pairwise_scores("p")["all_modules"]
        return analyzer.load_self_scores("s")["all_modules"], dots.T

    report("kronfluence 1 (identity)", model, peer)


if __name__ == "__main__":
    main()
