"""Whether the disk has room for a data set of the Hub, before hours of downloads: its files, and what is made of them.

`datasets` downloads every split of a set, whichever is asked for, and lays rows out in files of its own, which take
about as much again where they hold images.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from holdfast.errors import brief

GB = 1e9


def require_room(name: str, builder: Any) -> None:
    """Of a set as `load_dataset_builder` found it; nothing where it lies here already, or its sizes are unknown.

    Raises:
        ValueError: its files and what is made of them take more than is free.
    """
    from datasets import config as places
    from huggingface_hub import constants, try_to_load_from_cache

    if Path(builder.cache_dir).is_dir():
        return
    sizes = _sizes(name, builder)
    here = [try_to_load_from_cache(name, file, revision=builder.hash, repo_type="dataset") for file in sizes]
    missing = sum(size for size, path in zip(sizes.values(), here, strict=True) if not isinstance(path, str))
    wanted: dict[int, tuple[Path, int]] = {}
    for place, size in ((constants.HF_HUB_CACHE, missing), (places.HF_DATASETS_CACHE, sum(sizes.values()))):
        existing = next(path for path in (Path(place), *Path(place).absolute().parents) if path.exists())
        disk = existing.stat().st_dev
        wanted[disk] = existing, wanted.get(disk, (existing, 0))[1] + size
    for place, size in wanted.values():
        free = shutil.disk_usage(place).free
        if size > free:
            raise ValueError(
                f"it takes {size / GB:,.0f} GB of {brief(place, 60)}, which has {free / GB:,.0f} GB: set HF_HOME to a "
                "larger disk"
            )


def _sizes(name: str, builder: Any) -> dict[str, int]:
    """Of the set's files at its revision, by name; none where the Hub does not say."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import httpx

    beginning = f"hf://datasets/{name}@{builder.hash}/"
    urls = [str(url) for split in (builder.config.data_files or {}).values() for url in split]
    files = {url.removeprefix(beginning) for url in urls if url.startswith(beginning)}
    if not files:
        return {}
    try:
        found = HfApi().dataset_info(name, revision=builder.hash, files_metadata=True).siblings or []
    except (OSError, ValueError, httpx.HTTPError):
        return {}
    return {one.rfilename: one.size for one in found if one.rfilename in files and one.size}
