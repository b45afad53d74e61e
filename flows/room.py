"""Whether what a study will keep fits on the disk."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.config.study import Study
from holdfast.errors import UserError
from tasks.tracking import open_store

GB = 1e9


def require_disk(study: Study, needs: Mapping[str, Any], root: Path) -> None:
    """`needs` are the check's, by stage (arms.ARM.NUMBER); trainings that have finished are there already.

    Raises:
        UserError: the others' checkpoints take more than is free.
    """
    done = _finished(study, root)
    left = {where: max(0, study.replicates - done[where]) for where in needs}
    wanted = sum(count * needs[where]["disk"]["kept"] for where, count in left.items())
    wanted += max((needs[where]["disk"]["running"] for where, count in left.items() if count), default=0)
    free = shutil.disk_usage(root).free
    if wanted > free:
        raise UserError(
            f"{root}: checkpoints will take {wanted / GB:,.1f} GB and {free / GB:,.1f} GB are free; free some space, "
            "keep fewer (evaluation.keep), in half precision (evaluation.keep_dtype: bfloat16), or train adapters"
        )


def _finished(study: Study, root: Path) -> Counter[str]:
    """How many replicates of every stage have been trained, whatever their configuration was."""
    store = open_store(root)
    query = "attributes.status = 'FINISHED' and tags.`holdfast.kind` = 'train'"
    tags = [run.data.tags for run in store.search(query, store.experiment(study.experiment))]
    own = {(one["holdfast.arm"], one["holdfast.stage"], one["holdfast.replicate"]) for one in tags if _of(one, study)}
    return Counter(f"arms.{arm}.{stage}" for arm, stage, _ in own)


def _of(tags: Mapping[str, str], study: Study) -> bool:
    return tags.get("holdfast.study") == study.name
