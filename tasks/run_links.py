"""runs/STUDY/ARM: links to the folders of the latest trainings, so that they can be read without MLflow."""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.config.results import FinishedStudy, RunRecord
from tasks.recorded import compared_by
from tasks.study_export import reported
from tasks.tracking import Store

DIRECTORY = "runs"


def link_runs(root: Path, finished: FinishedStudy) -> list[Path]:
    """Link what a study trained; returns the links. Those of trainings that it no longer has are removed.

    A sweep's setting is a directory, and so are an arm's replicates and stages where it has several. What lies on a
    server has no folder here, and gets no link.
    """
    study = finished.study
    setting = study.name.removeprefix(f"{study.sweep}-") if study.sweep else ""
    top = root / DIRECTORY / study.experiment / setting
    if not top.resolve().is_relative_to((root / DIRECTORY).resolve()):
        # A report that was imported may name anything.
        return []
    arms = finished.study.arms
    trained = [run for run in finished.runs if run.kind == "train" and run.arm in arms]
    links = {top / _name(run, finished): Path(run.path) for run in trained}
    cache = root / "mlruns" / "cache"
    links = {link: place for link, place in links.items() if place.is_dir() and not place.is_relative_to(cache)}
    # A copy of the repository may have made directories of its links.
    links = {link: place for link, place in links.items() if link.is_symlink() or not link.exists()}
    _remove_others(top, set(links))
    for link, place in links.items():
        _link(link, place)
    return list(links)


def link_reported(root: Path, store: Store, name: str) -> list[Path]:
    """Link what the latest report of a study, or of every study of a sweep, compares."""
    compared = compared_by(reported(store, name), store)
    studies = () if compared is None else compared.studies
    return [link for study in studies for link in link_runs(root, study)]


def _name(run: RunRecord, finished: FinishedStudy) -> Path:
    several = finished.study.replicates > 1
    parts = [str(run.arm), f"replicate-{run.replicate}" if several else ""]
    parts.append(f"stage-{run.stage}" if len(finished.study.arms[str(run.arm)]) > 1 else "")
    return Path(*filter(None, parts))


def _remove_others(top: Path, wanted: set[Path]) -> None:
    """Remove links of ours that nothing wants, and directories without any; files of anybody's stay."""
    for place, directories, files in os.walk(top, topdown=False):
        for name in (*directories, *files):
            link = Path(place) / name
            if link.is_symlink() and link not in wanted:
                link.unlink()
        if Path(place) != top and not any(Path(place).iterdir()):
            Path(place).rmdir()


def _link(link: Path, place: Path) -> None:
    """Relative, so that the repository can be moved; one that is there is replaced at once."""
    link.parent.mkdir(parents=True, exist_ok=True)
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(os.path.relpath(place, link.parent), target_is_directory=True)
    partial.replace(link)
