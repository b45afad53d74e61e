"""How lm-evaluation-harness reads answers: it cuts a completion, filters it by a pattern and compares what is left."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

INVALID = "[invalid]"


def cut(completion: str, until: Sequence[str]) -> str:
    """What was written before the first of some texts, at which the harness stops a model."""
    for text in until:
        completion = completion.split(text)[0]
    return completion


def filtered(pattern: str, completion: str, place: int = 0) -> str:
    """The match of a pattern, by default the first one; of several groups the first that is not empty."""
    found = re.findall(pattern, completion)
    if not found:
        return INVALID
    match = found[place]
    if isinstance(match, tuple):
        match = next((group for group in match if group), INVALID)
    return match.strip()


def same(one: str, other: str) -> bool:
    """Equal but for case and ASCII punctuation."""
    bare = str.maketrans("", "", string.punctuation)
    return one.lower().translate(bare) == other.lower().translate(bare)
