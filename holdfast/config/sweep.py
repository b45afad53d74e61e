"""`vary` resolved: the studies of a sweep."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from holdfast.config.base import Config
from holdfast.config.study import Study


class Member(Config):
    """A study of a sweep."""

    levels: dict[str, str]
    """The level of each factor."""
    study: Study


class Sweep(Config):
    """An experiment file with `vary`: the same study for every combination of some factors' levels."""

    name: str
    factors: dict[str, tuple[str, ...]]
    """The levels of each factor, in the file's order."""
    members: Annotated[tuple[Member, ...], Field(min_length=1)]
