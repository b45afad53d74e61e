"""Questions of a target that is no jigsaw: drawn, read from a public data set, or from a file of one's own.

No picture is in two splits. Where one split of a data set is divided, or two of them hold the same image, the test
questions come first, then the validation's, and training does without their images.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, cast

from PIL import Image

from holdfast.benchmarks import catalog, imported
from holdfast.benchmarks.public.rows import PublicRows, columns_of
from holdfast.benchmarks.question import Draw, TargetQuestion, form
from holdfast.benchmarks.targets.protocol import PublicTarget
from holdfast.config.prior import Imported
from holdfast.config.targets import Arithmetic, Banner, Classes, Counting, Detection, Spatial, Target
from holdfast.data.hub import local_files
from holdfast.data.near_duplicates import NearDuplicates
from holdfast.data.pixels import pattern
from holdfast.data.shards import Question
from holdfast.data.splits import listed, split_images
from holdfast.data.tables import require_file
from holdfast.data.world import generator
from holdfast.errors import UserError

SPLITS = ("test", "validation", "train")
"""In the order in which they choose their images."""
Readable = Classes | Spatial | Detection | Counting | Arithmetic


def check(target: Target) -> None:
    """Refuse what can be seen without reading data."""
    for field in ("path", "test_path") if isinstance(target, Banner) else ():
        path = getattr(target, field)
        if path is not None:
            require_file(f"target.{field}", path)
    if isinstance(target, Readable) and target.public is not None:
        columns = columns_of(target.public)
        for field in cast(PublicTarget, catalog.TARGETS[target.benchmark]).COLUMNS:
            if getattr(columns, field) is None:
                raise UserError(
                    f"target.public.columns: {target.benchmark} needs `{field}`, which {target.public.name} lacks; "
                    f"name its column."
                )


def input_files(target: Target) -> list[tuple[str, Path]]:
    """The user's files that a target reads, by name."""
    if isinstance(target, Banner) and target.path is not None:
        return imported.input_files(_as_imported(target))
    public = target.public if isinstance(target, Readable) else None
    return [] if public is None else local_files(public.name, columns_of(public).image or "")


class TargetQuestions:
    """A target's questions, split by split in the order of SPLITS."""

    def __init__(self, target: Target, seed: int) -> None:
        self.target: Any = target
        self.seed = seed
        self.split_of_image: dict[str, str] = {}
        """Which split an image went to, by the digest of its PNG file, which is that of its pixels."""
        self.skipped: list[str] = []
        self._left_out: list[str] = []
        self._unasked: list[str] = []
        """Rows of which the target makes no question."""
        self._taken: Counter[str] = Counter()
        """By split, before few of each class are chosen."""
        self._splits: dict[str, str] = {}
        self._near_duplicates = NearDuplicates()
        self._rows: dict[str, PublicRows] = {}
        self._tests = 0
        """Rows of the file of test questions."""

    def questions(self, split: str) -> Iterator[Question]:
        """At most as many as the target wants."""
        wanted = getattr(self.target, split)
        if isinstance(self.target, Banner) and self.target.path is not None:
            found = self._imported(self.target, split)
        elif isinstance(self.target, Readable) and self.target.public is not None:
            found = self._public(split)
        else:
            found = self._drawn(split, wanted)
        limit = self.target.per_class if split == "train" else None
        yield from few(self._counted(found, split), wanted, limit)

    def warnings(self) -> list[str]:
        """On rows that were left out, on splits that are short and on near duplicates, once all questions are taken."""
        names, kind = self._left_out, self.target.benchmark
        shown = "question" if isinstance(self.target, Arithmetic) else "picture"
        left_out = f"{len(names)} row(s) are left out, since another split shows their {shown}: {listed(names)}."
        unasked = f"{len(self._unasked)} row(s) have no question and answer that {kind} reads, and are left out: "
        told = [*([left_out] if names else []), *([f"{unasked}{listed(self._unasked)}."] if self._unasked else [])]
        near_duplicates = self._near_duplicates.warning(self._splits)
        return [*told, *self._short(), *self._drawn_tests(), *([near_duplicates] if near_duplicates else [])]

    def _short(self) -> list[str]:
        asked = {split: getattr(self.target, split) for split in reversed(SPLITS)}
        short = [
            f"{self._taken[name]} of {asked[name]} for {name}" for name in asked if self._taken[name] < asked[name]
        ]
        if not short:
            return []
        return [f"{self.target.benchmark}: the data has fewer questions than are asked for: {', '.join(short)}."]

    def _drawn_tests(self) -> list[str]:
        kind, asked = self.target.benchmark, self.target.test
        if self._tests <= asked:
            return []
        return [f"{kind}: {asked} of {self._tests} test questions are asked, drawn by the seed (target.test)."]

    def _counted(self, found: Iterator[tuple[str, Question]], split: str) -> Iterator[tuple[str, Question]]:
        for one in found:
            self._taken[split] += 1
            yield one

    def _drawn(self, split: str, wanted: int) -> Iterator[tuple[str, Question]]:
        module = catalog.TARGETS[self.target.benchmark]
        for index in range(wanted):
            question = module.ask(self.target, Draw(self.seed, split, index))
            yield question.group, question.with_completions(f"{self.target.benchmark}/{split}/{index:06d}", self.target)

    def _public(self, split: str) -> Iterator[tuple[str, Question]]:
        """Rows of the split in random order; those that another split began with are left to it."""
        names = dict(zip(("train", "validation", "test"), columns_of(self.target.public).splits, strict=True))
        rows = self._opened(names[split])
        sharing = {other: getattr(self.target, other) for other in SPLITS if names[other] == names[split]}
        for index in _split_rows(len(rows), sharing, self.seed)[split]:
            question = self._public_question(rows, index)
            if question is not None:
                completed = question.with_completions(f"{rows.split}/{index:08d}", self.target)
                if self._claim(_shown(completed), split):
                    self._remember(completed, split)
                    yield question.group, completed
                else:
                    self._left_out.append(completed.image_id)

    def _opened(self, name: str) -> PublicRows:
        if name not in self._rows:
            self._rows[name] = PublicRows(self.target.public, name)
        return self._rows[name]

    def _public_question(self, rows: PublicRows, index: int) -> TargetQuestion | None:
        row = rows.row(index, generator("row", self.seed, rows.split, index))
        if row is None:
            self.skipped.append(f"{rows.split}/{index:08d}")
            return None
        module = cast(PublicTarget, catalog.TARGETS[self.target.benchmark])
        question = module.read(row, self.target, Draw(self.seed, rows.split, index))
        if question is None:
            self._unasked.append(f"{rows.split}/{index:08d}")
        return question

    def _imported(self, target: Banner, split: str) -> Iterator[tuple[str, Question]]:
        """Questions about the images of the split; several rows may ask about one image."""
        splits = self._split_images(target)
        tested = split == "test" and target.test_path is not None
        for question in self._asked_tests(target) if tested else _imported(target):
            shown = splits.get(_digest(_shown(question)[0]))
            if shown == split:
                self._remember(question, split)
                yield question.answer, _posed(question, target)
            elif shown == "test" and split == "train" and target.test_path is not None:
                self._left_out.append(question.id)

    def _asked_tests(self, target: Banner) -> Iterator[Question]:
        """As many as are wanted, drawn among all rows of their file, in the file's order."""
        drawn = {*generator("tests", self.seed).permutation(self._tests)[: target.test].tolist()}
        yield from (question for number, question in enumerate(_tests(target)) if number in drawn)

    def _split_images(self, target: Banner) -> dict[str, str]:
        if not self.split_of_image:
            tested = [[*map(_digest, _shown(question))] for question in _tests(target)]
            self._tests = len(tested)
            first = _connected(tested + [[*map(_digest, _shown(question))] for question in _imported(target)])
            split_of = {first[image]: "test" for shown in tested for image in shown}
            images = [image for image in dict.fromkeys(first.values()) if image not in split_of]
            counts = {name: getattr(target, name) for name in SPLITS if not (tested and name == "test")}
            shares = split_images(len(images), counts, self.seed, "target.path").items()
            split_of |= {images[number]: name for name, numbers in shares for number in numbers}
            self.split_of_image = {image: split_of[other] for image, other in first.items() if other in split_of}
        return self.split_of_image

    def _remember(self, question: Question, split: str) -> None:
        for number, image in enumerate(question.images, 1):
            name = question.image_id if number == 1 else f"{question.image_id}, image {number}"
            self._splits[name] = split
            self._near_duplicates.add(name, pattern(Image.open(BytesIO(image))))

    def _claim(self, shown: Iterable[bytes], split: str) -> bool:
        """Whether the split may show these images, or a text without any; they are its own from now on."""
        digests = [_digest(content) for content in shown]
        if any(self.split_of_image.get(digest, split) != split for digest in digests):
            return False
        self.split_of_image |= dict.fromkeys(digests, split)
        return True


def few(found: Iterable[tuple[str, Question]], wanted: int, per_class: int | None) -> Iterator[Question]:
    """The first `wanted` questions; of these, so many of each class, which stands before each question."""
    seen: Counter[str] = Counter()
    for _, (group, question) in zip(range(wanted), found, strict=False):
        seen[group] += 1
        if per_class is None or seen[group] <= per_class:
            yield question


def _split_rows(rows: int, counts: dict[str, int], seed: int) -> dict[str, list[int]]:
    """Row numbers by split: in proportion to what they want, and what is left over to the last in SPLITS."""
    order = generator("splits", seed).permutation(rows).tolist()
    last = [name for name in SPLITS if name in counts][-1]
    total, start, splits = sum(counts.values()), 0, {}
    for name in (name for name in SPLITS if name in counts and name != last):
        share = max(1, min(2 * counts[name], rows * counts[name] // total))
        splits[name] = order[start : start + share]
        start += share
    return splits | {last: order[start:]}


def _imported(target: Banner) -> Iterator[Question]:
    return imported.read_imported(_as_imported(target))


def _tests(target: Banner) -> Iterator[Question]:
    """The rows of the file of test questions, if there is one."""
    if target.test_path is not None:
        of = _as_imported(target).model_copy(update={"name": "banner-test", "path": target.test_path})
        yield from (question._replace(benchmark="banner") for question in imported.read_imported(of))


def _as_imported(target: Banner) -> Imported:
    assert target.path is not None
    return Imported(
        name="banner",
        path=target.path,
        validation_path=target.test_path,
        grader=target.grader,
        prefill=target.prefill,
    )


def _posed(question: Question, target: Banner) -> Question:
    """With the request for a form, where the question has none of its own."""
    question = question._replace(system=target.system or "")
    if question.grader == "boxed" and not target.boxed:
        raise UserError(
            f"target.grader: question {question.id} is graded by `boxed` in its row alone; set `grader: boxed` for the "
            "target, or grade the row otherwise."
        )
    if question.grader == "boxed":
        return question
    return question._replace(prompt=f"{question.prompt} {form(target.thinking)}")


def _connected(shown: list[list[str]]) -> dict[str, str]:
    """By image, the one that stands for all that questions show with it, with an image shown with it, and so on."""
    before: dict[str, str] = {}

    def first(image: str) -> str:
        while before[image] != image:
            image = before[image] = before[before[image]]
        return image

    for images in shown:
        for image in images:
            before.setdefault(image, image)
            before[first(image)] = first(images[0])
    return {image: first(image) for image in before}


def _shown(question: Question) -> Sequence[bytes]:
    """What no other split may show: the images, or the text of a question without any."""
    return question.images or (question.prompt.encode(),)


def _digest(shown: bytes) -> str:
    return hashlib.sha256(shown).hexdigest()
