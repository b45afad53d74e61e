"""When something is done along a training: every so many steps, every share of all, or log-spaced, dense early."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import PositiveFloat

When = PositiveFloat | Literal["log"]
"""Steps; below 1, a share of the stage's steps; `log`, at an eighth, a quarter, a half and the end of them."""
LOG = (1 / 8, 1 / 4, 1 / 2)
"""Shares of a training before its end, where models change most in the beginning."""


def scheduled(when: When, steps: int, period: int = 1) -> list[int]:
    """The steps of a training of `steps`: multiples of `period`, ascending, the last among them."""
    if when == "log":
        wanted = [share * steps for share in LOG]
    else:
        every = when * steps if when < 1 else when
        wanted = [every * index for index in range(1, math.floor(steps / every + 1e-9) + 1)]
    rounded = {math.ceil(round(step, 6) / period) * period for step in wanted}
    return sorted({step for step in rounded if 0 < step < steps} | {steps})


def chosen(when: When, kept: Sequence[int]) -> list[int]:
    """Of the steps that were kept, those nearest to the scheduled ones, ascending; of two as near, the later one."""
    steps = scheduled(when, max(kept))
    return sorted({min(kept, key=lambda step: (abs(step - wanted), -step)) for wanted in steps})
