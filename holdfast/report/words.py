"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def number(value: float | str | None, digits: int = 2) -> str:
    """With a true minus sign, and no minus before zero; JSON has "NaN" and "Infinity" as text."""
    if value is None:
        return "–"
    value = float(value)
    if math.isnan(value):
        return "–"
    if not math.isfinite(value):
        return "not finite"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """A difference, with its sign."""
    shown = number(value, digits)
    return shown if shown.startswith("−") or not math.isfinite(value) or float(shown) == 0 else f"+{shown}"


def significant(value: float | None, digits: int = 3) -> str:
    """With so many digits, and powers of ten where it is very small or large."""
    if value is None or not math.isfinite(value):
        return "–" if value is None or math.isnan(value) else "not finite"
    return f"{value:.{digits}g}".replace("-", "−")


def duration(seconds: float | None) -> str:
    """Two units at most, so that 34 s and 2 h 5 min read alike."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{seconds / 60:.1f} min" if seconds < 600 else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def fact(value: Any, limit: int = 8) -> str:
    """A note of a run, whatever it holds."""
    if isinstance(value, list | tuple):
        more = [f"and {len(value) - limit} more"] if len(value) > limit else []
        return f"{len(value)}: {', '.join([*map(str, value[:limit]), *more])}" if value else "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {fact(item)}" for key, item in value.items()) or "none"
    return number(value, 4) if isinstance(value, float) else str(value)


def listed(names: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
