"""Rows of a public benchmark as questions: drawn by the seed, posed by the benchmark, and what an answer is worth.

Rows that belong together (a pair of MME, all that is asked about one picture) are drawn together and lie in one split.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.benchmarks.grading.answer import Verdict
from holdfast.benchmarks.public.benchmarks import MODULES, source_of
from holdfast.benchmarks.public.boxes import FAMILIES, Family
from holdfast.benchmarks.public.protocol import Doc, Manner, Marked, Picture, Posed
from holdfast.benchmarks.question import THINK
from holdfast.config.prior import PublicPrior
from holdfast.data.hub import load_split, local_files, look_up
from holdfast.data.pixels import UNREADABLE, rgb
from holdfast.data.shards import Question, png
from holdfast.data.world import generator
from holdfast.errors import UserError, brief

ANY = Family("share", form="list")
MOST_EXAMPLES = 200
"""Rows among which solved examples are looked for."""


class Decoded(NamedTuple):
    """An image as the model will see it, and its sizes."""

    png: bytes
    sizes: Picture


def require(benchmark: PublicPrior) -> None:
    """Look its data set up, before any data set is downloaded. UserError where it is not there, or not for us."""
    source = source_of(benchmark)
    try:
        look_up(source.id, source.revision, source.split, source.config)
    except ValueError as error:
        raise UserError(f"prior.{benchmark.name}: {error}.") from error


def splits(benchmark: PublicPrior, seed: int, told: list[str]) -> Iterator[tuple[str, Iterator[Question]]]:
    """Validation questions, then test ones, each to be taken before the next; `told` gets what was left out."""
    rows = Rows(benchmark, seed)
    units = rows.units()
    if len(units) < 2:
        raise UserError(f"prior.{benchmark.name}: {brief(rows.source.id)} has one row, and two are needed; add some.")
    order = iter([units[place] for place in generator("units", seed, benchmark.name).permutation(len(units))])
    # Of a small set, a quarter at most is set apart.
    yield "validation", rows.drawn(islice(order, max(1, len(units) // 4)), benchmark.validation)
    yield "test", rows.drawn(order, benchmark.questions)
    if rows.skipped:
        told.append(f"{len(rows.skipped)} row(s) of {benchmark.name} have images that cannot be read: left out.")
    if rows.shrunk:
        told.append(f"{len(rows.shrunk)} image(s) of {benchmark.name} are scaled down to {benchmark.pixels} pixels.")


def judge(question: Question, completion: str) -> Verdict:
    """What a completion is worth, by the benchmark that the question's grader names."""
    verdict: Verdict = MODULES[question.grader].grade(completion, json.loads(question.details))
    return verdict


def metrics(benchmark: str, rows: Sequence[Marked]) -> dict[str, float]:
    """The authors' metrics of records."""
    found: dict[str, float] = MODULES[benchmark].metrics(rows)
    return found


def input_files(benchmark: PublicPrior) -> list[tuple[str, Path]]:
    """The files of a local copy, by name; none of a data set on the Hub."""
    source = source_of(benchmark)
    return local_files(source.id, (*source.images, "")[0]) if Path(source.id).is_dir() else []


class Rows:
    """A benchmark's rows; images are decoded when a row is posed."""

    def __init__(self, benchmark: PublicPrior, seed: int) -> None:
        self.benchmark, self.source, self.seed = benchmark, source_of(benchmark), seed
        self.module: Any = MODULES[benchmark.benchmark]
        self.rows = self._open(self.source.split)
        self.skipped: list[int] = []
        self.shrunk: set[bytes] = set()
        """Digests of images that are scaled down, as the shard has them."""
        self._large: set[bytes] = set()
        self._examples: list[Doc] | None = None

    def _open(self, split: str) -> Any:
        source, name = self.source, self.benchmark.name
        try:
            rows = load_split(source.id, source.revision, split, source.config)
        except ValueError as error:
            raise UserError(f"prior.{name}: {error}.") from error
        for column in (*source.columns, *source.images):
            if column not in rows.column_names:
                raise UserError(
                    f"prior.{name}: {brief(source.id)} has no column {column!r} (it has "
                    f"{brief(', '.join(rows.column_names), 80)}); name a revision that has it."
                )
        return rows.select_columns([*source.columns, *source.images]).with_format("arrow")

    def units(self) -> list[list[int]]:
        """Numbers of rows that belong together, in the order of the first of them."""
        if not self.source.unit:
            return [[place] for place in range(len(self.rows))]
        found: dict[str, list[int]] = {}
        columns = self.rows.select_columns(list(self.source.unit))[:].to_pylist()
        for place, row in enumerate(columns):
            found.setdefault(self._unit(row), []).append(place)
        return list(found.values())

    def _unit(self, row: Doc) -> str:
        name = "/".join(str(row[column]) for column in self.source.unit)
        return str(self.module.unit(name)) if hasattr(self.module, "unit") else name

    def drawn(self, units: Iterator[list[int]], wanted: int | None) -> Iterator[Question]:
        """The questions of units, in whole units as long as no more are drawn than wanted; of one unit at least."""
        taken = 0
        for unit in units:
            questions = [question for place in unit for question in self.questions(place)]
            if wanted is not None and taken and taken + len(questions) > wanted:
                return
            taken += len(questions)
            if self._large:
                self.shrunk |= self._large & {_digest(image) for question in questions for image in question.images}
            yield from questions
            if taken == wanted:
                return

    def questions(self, place: int) -> Iterator[Question]:
        """The questions of a row; none where an image of it cannot be read."""
        row = self.rows[place].to_pylist()[0]
        doc = {column: row[column] for column in self.source.columns}
        benchmark = self.benchmark
        given = self._pictures(row)
        if given is None:
            self.skipped.append(place)
            return
        sizes = next(iter(given.values())).sizes if given else None
        manner = Manner(benchmark.suffix, benchmark.boxes, self.seed)
        for number, posed in enumerate(self.module.pose(doc, sizes, manner)):
            shown = self.source.images if posed.images is None else posed.images
            images = tuple(given[column].png for column in shown if column in given)
            name = f"{benchmark.name}-{place:06d}" + (f"-{number}" if number else "")
            yield self._question(name, f"{benchmark.name}/{self._image(row, place)}", posed, images)

    def _pictures(self, row: Doc) -> dict[str, Decoded] | None:
        """A row's images by column; None where one cannot be read, or the first is not there."""
        columns = self.source.images
        if columns and not row[columns[0]]:
            return None
        try:
            return {column: self._picture(row[column]) for column in columns if row[column]}
        except UNREADABLE:
            return None

    def _image(self, row: Doc, place: int) -> str:
        return self._unit(row) if self.source.unit else f"{place:06d}"

    def _picture(self, value: Any) -> Decoded:
        given = rgb(BytesIO(value["bytes"]) if value.get("bytes") else Path(value["path"]))
        family = FAMILIES[self.benchmark.boxes] if self.benchmark.boxes else ANY
        shown = family.fitted(given, self.benchmark.pixels)
        content = png(shown)
        if given.width * given.height > self.benchmark.pixels:
            self._large.add(_digest(content))
        return Decoded(content, Picture(given.size, shown.size))

    def _question(self, name: str, image: str, posed: Posed, images: tuple[bytes, ...]) -> Question:
        benchmark = self.benchmark
        prefill = benchmark.prefill if benchmark.prefill is not None else "" if benchmark.thinking else posed.prefill
        return Question(
            id=name,
            image_id=image,
            images=images,
            prompt=self._shown_how(posed) + (THINK if benchmark.thinking else ""),
            answer=posed.answer,
            reference=posed.reference,
            grader=benchmark.benchmark,
            benchmark=benchmark.name,
            system=benchmark.system or "",
            prefill=prefill,
            details=json.dumps(posed.doc, ensure_ascii=False, default=str),
        )

    def _shown_how(self, posed: Posed) -> str:
        """The prompt after its solved examples, of the question's own kind where the benchmark says so."""
        opening = self.module.opening(posed.doc) if hasattr(self.module, "opening") else ""
        alike = getattr(self.module, "ALIKE", None)
        rows = [row for row in self._solved() if alike is None or row[alike] == posed.doc[alike]]
        number = self.source.shots if self.benchmark.shots is None else self.benchmark.shots
        if len(rows) < number:
            self._refuse_shots(
                number, len(rows), "" if alike is None else f" of {alike} {brief(str(posed.doc[alike]))}"
            )
        solved = [self.module.example(row) for row in rows[:number]]
        return opening + "\n\n".join([*solved, posed.prompt])

    def _refuse_shots(self, asked: int, found: int, kind: str) -> None:
        source = self.source
        raise UserError(
            f"prior.{self.benchmark.name}.shots: {asked} solved examples{kind} are asked for, and the first "
            f"{MOST_EXAMPLES} rows of {brief(source.id)} {source.examples} have {found}; ask for at most so many."
        )

    def _solved(self) -> list[Doc]:
        if self._examples is None:
            self._examples = []
            if self.source.examples and self.benchmark.shots != 0:
                self._examples = self._open(self.source.examples)[:MOST_EXAMPLES].to_pylist()
        return self._examples


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
