"""summary.json: the numbers of an analysis that the terminal, the model registry and other programs read."""

from __future__ import annotations

from typing import Any

from holdfast.analysis.study import Analysis


def summary(analysis: Analysis) -> dict[str, Any]:
    """JSON's dictionaries and lists. `arms.NAME.{score,retention,forgetting}` = mean, low, high, replicates, covers."""
    raise NotImplementedError
