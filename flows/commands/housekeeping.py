"""Moving studies between stores, and cleaning up: what the commands say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from tasks import store_lock
from tasks.data_garbage import checked_clones, old_objects, shared_cache
from tasks.garbage import (
    Garbage,
    dead_imports,
    deleted_runs,
    interrupted_work,
    old_stages,
    retired_checkpoints,
    unreadable_report,
    waiting_steps,
)
from tasks.needed_runs import Needed, needed_runs
from tasks.run_links import DIRECTORY, link_reported
from tasks.study_export import export_study
from tasks.study_import import import_study
from tasks.tracking import Store, open_store

MIB = 2**20


def export_lines(name: str, file: Path, root: Path) -> list[str]:
    """Export a study, and say what is in the archive."""
    done = export_study(name, file, root)
    return [
        f"{file}: {name} with {done.runs} runs and {done.files} files, {done.bytes / MIB:,.1f} MiB.",
        f"There, in a clone of this commit: holdfast import {file.name}",
    ]


def import_lines(file: Path, root: Path) -> list[str]:
    """Import an archive, and say what came of it."""
    done = import_study(file, root)
    if not done.runs and done.mended:
        return [f"{done.study} is there already; what {done.mended} of its runs had lost was brought back."]
    if not done.runs:
        return [f"{done.study} is there already, and its runs are whole; nothing was imported."]
    links = link_reported(root.resolve(), open_store(root), done.study)
    where = [f"Its {len(links)} trainings can be read below {DIRECTORY}/."] if links else []
    return [f"{done.study} is imported, {done.runs} runs; `holdfast study FILE` finds it.", *done.told, *where]


def gc_lines(root: Path, clones: Sequence[Path], delete: bool) -> Iterator[str]:
    """Say what can go, why, and how much that is, and with `delete` remove it."""
    root, clones = root.resolve(), checked_clones(clones)
    store = open_store(root)
    total = 0
    with store_lock.alone(root) as free:
        needed = needed_runs(store)
        busy = needed.at_work or ([] if free else ["a study"])
        always = chain(interrupted_work(root, store), dead_imports(root, store, needed))
        for garbage in chain(always, [] if busy else _old(root, store, needed, clones)):
            total += garbage.size
            yield f"{garbage.size / MIB:10,.1f} MiB  {garbage.what}: {garbage.why}"
            if delete:
                garbage.remove()
        for parent in needed.reported.values():
            if why := unreadable_report(store, parent):
                yield f"All that the report of {parent.info.run_name} names is kept: {why}"
    if busy:
        yield f"Stages and data are left alone while {', '.join(busy)} runs, which may build on any of them."
    elif not _touches_cache(root, clones) and (root / ".dvc").is_dir():
        yield "DVC's cache lies outside this repository and is left alone; name the others with --clone DIRECTORY."
    if not total:
        yield "There is nothing to remove."
    else:
        yield f"{total / MIB:,.1f} MiB removed." if delete else f"{total / MIB:,.1f} MiB; --delete removes it."


def _old(root: Path, store: Store, needed: Needed, clones: Sequence[Path]) -> Iterator[Garbage]:
    yield from waiting_steps(root)
    yield from old_stages(root, store, needed)
    yield from retired_checkpoints(store, needed)
    yield from deleted_runs(store, needed)
    if _touches_cache(root, clones):
        versions = {run.data.tags.get("holdfast.data", "") for run in needed.runs if not needed.why_not(run)}
        yield from old_objects(root, versions, clones)


def _touches_cache(root: Path, clones: Sequence[Path]) -> bool:
    return (root / ".dvc").is_dir() and (bool(clones) or not shared_cache(root))
