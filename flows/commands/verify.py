"""`holdfast verify`: a table of what was checked of a study, and the names of all that differs or is missing."""

from __future__ import annotations

from pathlib import Path

from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table

from flows.commands.experiment import load_experiment, studies_of
from flows.commands.results import console
from tasks.progress import console as progress_console
from tasks.recorded import RecordedStudy, recorded_studies
from tasks.tracking import Store, open_store
from tasks.verification import Checked, Verifier

MEBI = 2**20


def verify_studies(name: str, root: Path) -> bool:
    """Check a study by its name, the id of its run, or its experiment's file; of a sweep, all. True if all is whole."""
    store = open_store(root)
    file = Path(name)
    names = [study.name for study in studies_of(load_experiment(file))] if file.suffix in (".yaml", ".yml") else [name]
    studies = [study for one in names for study in recorded_studies(one, store)]
    # Each of them, also after one that is not whole.
    whole = [_verify(study, store, root) for study in studies]
    return all(whole)


def _verify(study: RecordedStudy, store: Store, root: Path) -> bool:
    found: list[Checked] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=progress_console, transient=True) as bar:
        task = bar.add_task(study.name)
        verifier = Verifier(study, store, root, lambda what: bar.update(task, description=f"{study.name}: {what}"))
        for checked in verifier.check():
            found.append(checked)
    certificate = f", certificate {study.certificate.digest}" if study.certificate else ""
    console.print(f"{study.name}: run {study.run.info.run_id}{certificate}", soft_wrap=True)
    console.print(_table(found))
    wrong = [(one.what, name) for one in found for name in one.wrong]
    for what, name in wrong:
        console.print(f"  {what}: {name}", soft_wrap=True)
    total = sum(one.files for one in found)
    said = f"{len(wrong)} of what was recorded differ or are missing" if wrong else "all is as it was recorded"
    console.print(f"{study.name}: {total} files, {said}.", soft_wrap=True)
    return not wrong


def _table(found: list[Checked]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2))
    for name in ("checked", "files", "MiB", ""):
        table.add_column(name, justify="right" if name in ("files", "MiB") else "left")
    for one in found:
        result = f"{len(one.wrong)} wrong" if one.wrong else "ok"
        result += f", {one.let_go} let go by `checkpoints`" if one.let_go else ""
        table.add_row(one.what, str(one.files), f"{one.size / MEBI:.1f}", result)
    return table
