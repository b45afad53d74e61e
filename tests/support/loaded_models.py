"""How many models lie in memory whenever another one is loaded."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from holdfast.models.load import load_model


def counting(beside: list[int]) -> Callable[..., Any]:
    """A `load_model` that notes, each time, how many of those that it has loaded are still there."""
    loaded: list[weakref.ref[Any]] = []

    def loading(*arguments: Any) -> Any:
        beside.append(sum(one() is not None for one in loaded))
        model = load_model(*arguments)
        loaded.append(weakref.ref(model))
        return model

    return loading
