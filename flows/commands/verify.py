"""Read every file that finished runs keep and hold it against its digest; a study itself goes by sizes and times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tasks.stage_cache import changed_files, intact_result
from tasks.tracking import open_store


class Verified(NamedTuple):
    """A finished stage's run."""

    run_id: str
    name: str
    files: int
    changed: list[str]
    """Files that are gone or not what they were."""


def verified(root: Path) -> Iterator[Verified]:
    """Every finished stage that kept files, latest first; the next study hashes a changed file, whatever its time."""
    store = open_store(root)
    for run in store.search("attributes.status = 'FINISHED' and tags.`holdfast.stage_key` != ''"):
        place, tags = store.artifacts(run), run.data.tags
        result = intact_result(place, with_files=False)
        # DVC answers for the shards of data; samples belong to an arm.
        shards = tags.get("holdfast.kind") == "data" and not tags.get("holdfast.arm")
        if result is not None and not shards:
            changed = changed_files(place, result, hash_all=True)
            for name in changed:
                if (place / name).is_file():
                    (place / name).touch()
            yield Verified(run.info.run_id, run.info.run_name, len(result.files), changed)
