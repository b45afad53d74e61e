"""In which precision weights are kept, and in which a model computes while it is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from holdfast.config.jobs import Train
from holdfast.config.refs import ModelRef
from holdfast.models.load import load_config

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def base_dtype(dtype: str, base: ModelRef) -> str:
    """What `auto` means for every stage of a study: the precision that its base was saved in."""
    if dtype != "auto":
        return dtype
    config = load_config(base)
    saved = config.dtype or config.get_text_config().dtype or torch.float32
    return str(saved).removeprefix("torch.")


def study_dtype(job: Train) -> str:
    """The precision that the training's base is measured in."""
    return base_dtype(job.dtype, job.base)


def weight_dtype(job: Train) -> str:
    """Weights that learn are kept in float32: in bfloat16, updates smaller than its rounding are lost.

    Beneath an adapter, which peft keeps in float32, they do not learn.
    """
    return study_dtype(job) if job.stage.lora is not None else "float32"


def learn_in_float32(model: Any) -> Any:
    """The model, all of it in float32 where some of what learns is in half precision, as copies beside an adapter."""
    learning = (parameter.dtype for parameter in model.parameters() if parameter.requires_grad)
    return model.float() if any(dtype in HALF.values() for dtype in learning) else model


@contextmanager
def computing_in(dtype: str, model: Any) -> Iterator[None]:
    """Within, a model that learns in float32 computes as its checkpoint would in half precision.

    So a model that has learned nothing scores what its base scored. Autocast, which accelerate wraps around the forward
    pass, would keep sums and norms in float32.
    """
    if dtype not in HALF:
        yield
        return
    wrapped = vars(model).pop("forward", None)
    kept = [(parameter, parameter.data) for parameter in model.parameters() if model.dtype == torch.float32]
    try:
        for parameter, value in kept:
            parameter.data = value.to(HALF[dtype])
        yield
    finally:
        for parameter, value in kept:
            parameter.data = value
        if wrapped is not None:
            vars(model)["forward"] = wrapped
