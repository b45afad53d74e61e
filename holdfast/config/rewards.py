"""The reward terms of reinforcement, as a study's file names them. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from holdfast.config.base import Config


class Term(Config):
    """What all reward terms share."""

    weight: float = Field(default=1.0, allow_inf_nan=False)
    """What the term counts in the sum; a term of weight 0 is only logged."""
    gate: Literal["correct"] | None = None
    """`correct`: a completion that is not all right gets 0."""
    warm_up: NonNegativeInt = 0
    """Optimizer steps over which the term grows linearly from nothing to its full size."""

    @property
    def judges(self) -> bool:
        """Whether the term depends on a completion being right, beside what it measures."""
        return self.gate is not None


class GradedTerm(Term):
    """What the question's grader, or the form of the completion, gives."""

    kind: Literal["score", "accuracy", "format", "adjacency"]
    """Partial credit (of a jigsaw the share of pieces in place, of a box the IoU); 1 if all is right; 1 if the tags are
    as asked for; of a jigsaw the share of neighbouring pieces that stay neighbours on the same side."""


class LengthTerm(Term):
    """How long the reasoning in <think> is. Completions without one such pair of tags get the variant's least."""

    kind: Literal["length"]
    variant: Literal["minmax", "kimi", "kimi-longer", "band", "zscore", "running-mean", "cosine", "brevity"]
    """docs/rewards.md has the formulas; none of them is known to be that of arXiv 2504.05682."""
    unit: Literal["tokens", "words"] = "tokens"
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    low: NonNegativeInt = 0
    """`band`: the shortest that is paid."""
    high: PositiveInt | None = None
    """`band`: the longest that is paid. `cosine` and `brevity`: the length at which they end."""
    right: tuple[float, float] = (1.0, 0.5)
    """`cosine`: for a right completion of length 0, and of length `high`."""
    wrong: tuple[float, float] = (-1.0, 0.0)
    """`cosine`: for a wrong one."""

    @property
    def judges(self) -> bool:
        return self.gate is not None or self.variant in ("kimi", "kimi-longer", "cosine")

    @model_validator(mode="after")
    def _fields_fit_the_variant(self) -> Self:
        bounded = self.variant in ("band", "cosine", "brevity")
        if bounded != (self.high is not None):
            raise ValueError(f"high: {self.variant} {'needs a' if bounded else 'has no'} longest length")
        if self.low and (self.variant != "band" or self.high is None or self.low > self.high):
            raise ValueError("low: only a band has a shortest length, not above its longest")
        if self.gate and self.variant in ("kimi", "kimi-longer", "cosine"):
            raise ValueError(f"gate: {self.variant} has a rule of its own for wrong answers; leave gate out")
        if self.variant != "cosine" and (self.right, self.wrong) != ((1.0, 0.5), (-1.0, 0.0)):
            raise ValueError("right and wrong: only cosine has them; leave them out")
        return self


class RetentionTerm(Term):
    """How near a completion is to what the model would have written as the stage found it (RaPO)."""

    kind: Literal["retention"]
    weight: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    sharpness: PositiveFloat = 20.0
    """α of exp(−α · max(0, mean over its tokens of log p(token) − log p*(token)))."""


class FunctionTerm(Term):
    """The user's own reward, called as TRL calls one: lists of completions and of columns in, a list of numbers out."""

    kind: Literal["function"] = "function"
    function: str
    """`module:function`; the module is looked for in the directory where the command is run, too."""

    @field_validator("function")
    @classmethod
    def _is_an_import_path(cls, path: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", path):
            raise ValueError(f"{path!r} is no import path; write module:function, for example my_rewards:polite")
        return path


PLAIN_REWARDS = ("score", "accuracy", "format", "adjacency", "retention")
COLUMNS = frozenset({"step", "id", "prompt", "completion", "image", "answer"})
"""Columns of the tables of completions, which no reward may be named like."""


def terms(value: Any) -> Any:
    """What people write, in full: `score: 1.0` is the term of that name and weight; a mapping has a kind or a function,
    or its name's kind."""
    if not isinstance(value, dict):
        return value
    return {name: _term(str(name), given) for name, given in value.items()}


def _term(name: str, given: Any) -> Any:
    if isinstance(given, Term):
        return given
    if name in COLUMNS:
        raise ValueError(f"{name}: tables of completions have a column of this name; choose another")
    fields = given if isinstance(given, dict) else {"weight": given}
    if "kind" in fields or "function" in fields:
        return {"kind": "function", **fields} if "function" in fields else fields
    if name not in PLAIN_REWARDS:
        raise ValueError(
            f"{name}: is none of {', '.join(PLAIN_REWARDS)}; give it `kind: length` with a variant, or a function"
        )
    return {"kind": name, **fields}


RewardTerm = Annotated[GradedTerm | LengthTerm | RetentionTerm | FunctionTerm, Field(discriminator="kind")]


def rewards_misfit(rewards: Mapping[str, RewardTerm], thinking: bool, neighbours: bool) -> str:
    """Which term can measure nothing on this target, and the remedy; empty if all can."""
    for name, term in rewards.items():
        if term.kind == "length" and not thinking:
            return f"{name}: measures what stands in <think>, and target.thinking is false; set it or remove the term"
        if term.kind == "adjacency" and not neighbours:
            return f"{name}: only a jigsaw whose target.question is full has neighbours to keep; remove the term"
    return ""
