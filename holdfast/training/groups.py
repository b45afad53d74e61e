"""Groups that teach nothing, or nothing but a length: counted at every generation, logged beside TRL's metrics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from holdfast.config.rewards import RewardTerm


def group_metrics(
    terms: Mapping[str, RewardTerm], values: Mapping[str, np.ndarray], right: np.ndarray
) -> dict[str, float]:
    """Shares of groups; all arrays are (groups, rollouts), `right` says which completions are all right.

    `groups/all_right` and `groups/all_wrong`; with length terms that count, also `groups/length_only`: nothing but
    length sets a group's completions apart, so what is learned from it is to write longer or shorter.
    """
    found = {"groups/all_right": right.all(1).mean(), "groups/all_wrong": (~right).all(1).mean()}
    counting = {name: term for name, term in terms.items() if term.weight}
    lengths = [name for name, term in counting.items() if term.kind == "length"]
    if lengths:
        tasks = [values[name] for name in counting if name not in lengths]
        if any(counting[name].judges for name in lengths):
            tasks.append(right)
        apart = np.any([_differs(values[name]) for name in lengths], 0)
        told = np.any([_differs(task) for task in tasks], 0) if tasks else np.zeros(len(right), bool)
        found["groups/length_only"] = (apart & ~told).mean()
    return {name: float(share) for name, share in found.items()}


def _differs(values: np.ndarray) -> np.ndarray:
    """In which groups not all values are the same."""
    same = (values == values[:, :1]) | (np.isnan(values) & np.isnan(values[:, :1]))
    return ~same.all(1)
