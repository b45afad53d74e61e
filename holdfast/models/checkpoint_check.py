"""Whether a checkpoint's files are whole and fit the model: transformers draws at random what it does not find."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from holdfast.errors import UserError, reason

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SETTINGS = "*config.json"
POINTER = b"version https://git-lfs"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
WRAPPED = {"_orig_mod.": "a compiled model", "module.": "a model in a parallel wrapper"}


class Misfits(NamedTuple):
    """Names of weights that do not fit, by the kinds that `from_pretrained` reports."""

    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]


def require_settings(place: Path) -> None:
    """Look at what stands beside a checkpoint's weights.

    Raises:
        UserError: a file is a pointer of Git LFS, or settings are no JSON.
    """
    for file in sorted(place.iterdir()):
        if file.is_file() and _begins(file) == POINTER:
            raise UserError(f"model.path: {file} is a pointer of Git LFS; fetch the file itself with `git lfs pull`")
    for file in sorted(place.glob(SETTINGS)):
        _require_object(file)


def require_whole(place: Path) -> None:
    """Look at the names of a checkpoint's weights without reading them.

    Raises:
        UserError: weights are missing, cut off, pickled or saved from a wrapper.
    """
    names = [name for file in weight_files(place) for name in _names(file)]
    for prefix, saved in WRAPPED.items():
        wrapped = sum(name.startswith(prefix) for name in names)
        if wrapped:
            raise UserError(
                f"model.path: {wrapped} weights of {place} begin with `{prefix}`, so it was saved from {saved}; "
                "remove the prefix or save the model inside the wrapper"
            )


def weight_files(place: Path) -> list[Path]:
    """The checkpoint's safetensors files, in the order in which transformers prefers them.

    Raises:
        UserError: there are none, or fewer than the index names.
    """
    if (place / WEIGHTS).is_file():
        return [place / WEIGHTS]
    if not (place / INDEX).is_file():
        pickled = next((file.name for pattern in PICKLED for file in sorted(place.glob(pattern))), None)
        reason = f"holds pickled weights ({pickled}) and" if pickled else "holds"
        raise UserError(
            f"model.path: {place} {reason} no {WEIGHTS}; name a checkpoint that `save_pretrained` wrote as safetensors"
        )
    try:
        files = sorted(set(json.loads((place / INDEX).read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"model.path: {place / INDEX} is no index of weights; fetch it again") from None
    if not files:
        raise UserError(f"model.path: {place / INDEX} names no files; save the model again")
    absent = [name for name in files if not (place / name).is_file()]
    if absent:
        raise UserError(
            f"model.path: {place} lacks {len(absent)} of the {len(files)} files that {INDEX} names, first {absent[0]}; "
            "fetch them"
        )
    return [place / name for name in files]


def require_fit(place: str, found: Mapping[str, Any]) -> None:
    """Refuse weights that `from_pretrained` drew at random, left out or resized; tied heads and buffers are its own.

    Raises:
        UserError: names and counts of those that do not fit.
    """
    strange = [name if isinstance(name, str) else name[0] for name in found["mismatched_keys"]]
    require_names(place, Misfits(sorted(found["missing_keys"]), sorted(found["unexpected_keys"]), sorted(strange)))


def require_names(place: str, misfits: Misfits) -> None:
    """Refuse what does not fit.

    Raises:
        UserError: names and counts of those that do not fit.
    """
    messages = [f"{len(names)} {kind}, first {names[0]}" for kind, names in misfits._asdict().items() if names]
    if messages:
        raise UserError(
            f"model.path: weights of {place} do not fit the model ({'; '.join(messages)}); save the whole model again"
        )


def require_finite(place: str, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse weights that are no numbers.

    Raises:
        UserError: their count and the first name.
    """
    broken = [name for name, value in tensors if not _finite(value)]
    if broken:
        raise UserError(
            f"model.path: {len(broken)} weights of {place} are not finite, first {broken[0]}; "
            "name a checkpoint from before they broke"
        )


def stored_weights(place: Path) -> Iterator[tuple[str, Tensor]]:
    """A checkpoint's weights under their names in its files, one at a time."""
    for file in weight_files(place):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                yield name, opened.get_tensor(name)


def _finite(value: Tensor) -> bool:
    """By the extremes, which take a tenth of the time of isfinite and are NaN where anything is."""
    if not value.is_floating_point() or not value.numel():
        return True
    return all(bool(end.isfinite()) for end in (value if value.element_size() > 1 else value.float()).aminmax())


def _require_object(file: Path) -> None:
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"model.path: {file} is no JSON ({reason(error)}); fetch or save it again") from None
    if not isinstance(content, dict):
        raise UserError(f"model.path: {file} holds no settings by name; fetch or save it again")


def _names(file: Path) -> list[str]:
    """From the header, whose offsets must agree with the file's size."""
    try:
        with safe_open(file, "pt") as opened:
            return list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"model.path: {file} is cut off or no safetensors file ({reason(error)}); fetch it again"
        ) from None


def _begins(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(len(POINTER))
