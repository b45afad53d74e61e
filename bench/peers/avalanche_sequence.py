"""Avalanche's own forgetting, BWT and FWT of matrices of accuracies, as JSON; tests hold ours against them.

In an environment of its own: `uv venv x && uv pip install --python x avalanche-lib`, then
`x/bin/python bench/peers/avalanche_sequence.py > tests/analysis/avalanche.json`. The stream metrics run as in a
training: initialised, told which experience was trained, and given each evaluation's accuracy.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
from avalanche.evaluation.metrics.forgetting_bwt import StreamBWT, StreamForgetting
from avalanche.evaluation.metrics.forward_transfer import StreamForwardTransfer


def given(kind: type) -> Any:
    """The metric, but an evaluation's accuracy is what the stand-in for a strategy says."""
    return type(kind.__name__, (kind,), {"metric_update": lambda *_: None, "metric_result": lambda _, s: s.accuracy})()


def evaluated(metric: Any, strategy: SimpleNamespace, row: np.ndarray) -> None:
    """One evaluation of all experiences."""
    metric.before_eval(strategy)
    for task, accuracy in enumerate(row):
        strategy.accuracy, strategy.experience = (
            float(accuracy),
            SimpleNamespace(current_experience=task, origin_stream=SimpleNamespace(name="test"), task_label=0),
        )
        metric.before_eval_exp(strategy)
        metric.after_eval_iteration(strategy)
        metric.after_eval_exp(strategy)
    metric.after_eval(strategy)


def measured(matrix: np.ndarray) -> dict[str, float]:
    """Row 0 is before training, row j after experience j − 1."""
    found = {}
    for kind in (StreamForgetting, StreamBWT, StreamForwardTransfer):
        metric = given(kind)
        strategy = SimpleNamespace(eval_every=0, clock=SimpleNamespace(train_iterations=0), is_training=False)
        metric._package_result = lambda _: None
        if kind is StreamForwardTransfer:
            evaluated(metric, strategy, matrix[0])
        for number, row in enumerate(matrix[1:]):
            strategy.experience = SimpleNamespace(current_experience=number)
            metric.before_training_exp(strategy)
            evaluated(metric, strategy, row)
        found[kind.__name__] = float(metric.result())
    return found


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    matrices = [generator.integers(0, 101, (tasks + 1, tasks)) / 100 for tasks in (2, 3, 5)]
    print(json.dumps([{"matrix": one.tolist(), **measured(one)} for one in matrices]))
