"""`make faults`: any number of seeded faults; what is in the results file already is not done again."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from faults import commands
from faults.bed import Bed, beds
from faults.draw import Fault, draw
from faults.outcome import SAME, UNABLE, outcome

MODEL = """
import sys, torch
from pathlib import Path
from holdfast.models.load import save_checkpoint
from holdfast.models.tiny.build import build_model
from holdfast.models.tiny.processor import build_processor
torch.manual_seed(0)
processor = build_processor()
save_checkpoint(build_model(processor, hidden=64, layers=1), processor, Path(sys.argv[1]))
"""


def main(arguments: list[str] | None = None) -> int:
    """Do what is missing of a campaign, as far as its time goes, and print the table."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", nargs="+", default=["stages", "study"], choices=["stages", "study", "ranks"])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no fault after so many")
    parser.add_argument("--results", type=Path, default=Path("faults.jsonl"))
    parser.add_argument("--table", type=Path, help="write the table as Markdown")
    given = parser.parse_args(arguments)
    done = [line for line in _read(given.results) if line["seed"] == given.seed]
    known = {line["number"] for line in done}
    if "ranks" in given.layers and len(given.layers) > 1:
        parser.error("--layers ranks has a study of its own; give it alone")
    layers = ("ranks",) if "ranks" in given.layers else ("stages", "study")
    drawn = [draw(given.seed, number, layers) for number in range(given.faults) if number not in known]
    missing = [fault for fault in drawn if fault.layer in given.layers]
    if missing:
        with given.results.open("a") as file:
            done += _run(missing, file, time.monotonic() + given.seconds)
    text = table(done)
    print(text)
    if given.table:
        given.table.write_text(text)
    return int(any(line["outcome"] == "failed" for line in done))


def _run(faults: list[Fault], file: Any, deadline: float) -> list[dict[str, Any]]:
    with TemporaryDirectory(prefix="faults") as name:
        place, model = Path(name), Path(name) / "model"
        subprocess.run([sys.executable, "-c", MODEL, model], check=True)
        with beds(place, model, ranks=1 + (faults[0].layer == "ranks")) as [bed]:
            if any(fault.layer == "study" for fault in faults):
                commands.build(bed)
            return list(_go_on(bed, faults, file, deadline))


def _go_on(bed: Bed, faults: list[Fault], file: Any, deadline: float) -> Iterator[dict[str, Any]]:
    for fault in faults:
        if time.monotonic() > deadline:
            return
        line = outcome(bed, fault)
        print(f"{fault.number:5} {line['seconds']:6.1f} s  {fault.label}: {line['outcome']}", file=sys.stderr)
        file.write(json.dumps(line) + "\n")
        file.flush()
        yield line


def table(done: list[dict[str, Any]]) -> str:
    """Fault × stage × outcome, in Markdown."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    counts = Counter(line["outcome"] for line in done)
    lines = [f"{len(done)} faults ({machine}): {', '.join(f'{n} {what}' for what, n in counts.most_common())}.", ""]
    stages = list(dict.fromkeys(line["stage"] for line in done))
    lines += [f"| fault | {' | '.join(stages)} |", "|---|" + "---|" * len(stages)]
    for layer, kind, way in sorted({(line["layer"], line["kind"], line["way"]) for line in done}):
        cells = [_cell([line for line in done if _place(line) == (layer, kind, way, stage)]) for stage in stages]
        where = {"stages": "", "study": " (the command)", "ranks": " (of two)"}[layer]
        lines.append(f"| {kind}{where}: {way} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"n: {SAME}, n times; everything else is named.", ""])


def _place(line: dict[str, Any]) -> tuple[str, str, str, str]:
    return line["layer"], line["kind"], line["way"], line["stage"]


def _cell(lines: list[dict[str, Any]]) -> str:
    counts = Counter(line["outcome"] for line in lines if line["outcome"] != UNABLE)
    return ", ".join(str(n) if what == SAME else f"{n} {what}" for what, n in counts.most_common())


def _read(results: Path) -> list[dict[str, Any]]:
    lines = results.read_text().splitlines() if results.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


if __name__ == "__main__":
    sys.exit(main())
