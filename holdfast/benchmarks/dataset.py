"""The data stage: the target's questions and those of every prior benchmark, as shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from holdfast.benchmarks import catalog, imported, target_questions
from holdfast.benchmarks.prior import plain
from holdfast.benchmarks.public import benchmarks as public
from holdfast.benchmarks.public import questions as public_questions
from holdfast.benchmarks.targets import jigsaw
from holdfast.config.images import Images, World
from holdfast.config.jobs import MakeData
from holdfast.config.prior import Imported, Prior, PriorBenchmark, PublicPrior
from holdfast.config.refs import content_key, file_digest
from holdfast.config.targets import Arithmetic, Banner, Jigsaw, Target
from holdfast.data.hub import noting_commits
from holdfast.data.images import Source, input_files, open_source
from holdfast.data.shards import Question, prior_shard, target_shard, write_questions
from holdfast.data.splits import in_order, listed
from holdfast.errors import UserError, brief

SPLITS = ("train", "validation", "test")


def make_data(job: MakeData, out: Path) -> dict[str, Any]:
    """Write target-{train,validation,test}.parquet, prior-NAME.parquet and prior_validation-NAME.parquet into `out`.

    Returns counts, skips, and the commits at which data sets were read from the Hub.
    """
    with noting_commits() as commits:
        notes = _made(job, out)
    unnamed = [name for name, is_named in commits.items() if not is_named]
    told = [f"{name} is what the Hub has today; name that commit as its `revision`." for name in unnamed]
    return notes | {"commits": sorted(commits), "told": [*notes["told"], *told]}


def _made(job: MakeData, out: Path) -> dict[str, Any]:
    check(job)
    for prior in job.prior:
        if isinstance(prior, PublicPrior):
            public_questions.require(prior)
    made = [_write_target(name, target, job, out) for name, target in _targets(job).items()]
    notes = {key: value for one in made for key, value in one.items()}
    notes["questions"] = {shard: count for one in made for shard, count in one["questions"].items()}
    notes |= {key: [line for one in made for line in one[key]] for key in ("skipped", "told")}
    for prior in job.prior:
        for split, questions in prior_questions(prior, job.seed, notes["told"]):
            shard = prior_shard(prior.name, split)
            notes["questions"][shard.removesuffix(".parquet")] = write_questions(out / shard, questions)
    return notes


def _targets(job: MakeData) -> dict[str, Target]:
    """By what stands in their shards' names."""
    return job.targets or {"": job.target}


def _write_target(name: str, target: Target, job: MakeData, out: Path) -> dict[str, Any]:
    write = partial(_write_puzzles, target) if isinstance(target, Jigsaw) else partial(_write_others, target)
    return write({split: out / target_shard(split, name) for split in SPLITS}, job)


def _write_puzzles(target: Jigsaw, shards: dict[str, Path], job: MakeData) -> dict[str, Any]:
    """Puzzles of the source's images."""
    counts = {split: getattr(target, split) for split in SPLITS}
    source = open_source(job.images, job.seed)
    splits = source.split(counts)
    written = {}
    for split in SPLITS:
        cut = ((puzzle.answer, puzzle) for puzzle in puzzles(source, splits[split], target, job.seed))
        few = target_questions.few(cut, counts[split], target.per_class if split == "train" else None)
        written[shards[split].stem] = write_questions(shards[split], few)
    images = {split: len(splits[split]) for split in SPLITS}
    return {"images": images, "questions": written, **_left_out(source.skipped, source.warnings)}


def _write_others(target: Target, shards: dict[str, Path], job: MakeData) -> dict[str, Any]:
    """Questions of any other target. UserError if a split is left with none."""
    source = target_questions.TargetQuestions(target, job.seed)
    written = {}
    for split in target_questions.SPLITS:
        count = write_questions(shards[split], source.questions(split))
        if not count:
            raise UserError(
                f"target.{split}: the data holds no question for this split; ask for fewer elsewhere, or use more data."
            )
        written[shards[split].stem] = count
    return {"questions": written, **_left_out(source.skipped, source.warnings())}


def _left_out(skipped: list[str], warnings: list[str]) -> dict[str, Any]:
    """`skipped` names all images that cannot be read; `told` are warnings for a person."""
    names = sorted(skipped)
    unread = [f"{len(names)} image(s) cannot be read and are left out: {listed(names)}."] if names else []
    return {"skipped": names, "told": unread + warnings}


def check(job: MakeData) -> None:
    """Refuse what no data can be made for, before any is."""
    targets = list(_targets(job).values())
    for target in targets:
        if isinstance(target, Jigsaw):
            jigsaw.check_fit(target.grid, job.images.size)
        else:
            target_questions.check(target)
    if job.images != World() and not any(isinstance(target, Jigsaw) for target in targets):
        own = "shows no images" if isinstance(targets[0], Arithmetic) else "has images of its own"
        raise UserError(f"images: {targets[0].benchmark} {own}; leave this field out.")
    for prior in job.prior:
        if isinstance(prior, PublicPrior):
            public.check(prior)
        if isinstance(prior, Prior) and prior.dialect:
            plain.answers(prior.benchmark)
    names = [prior.name for prior in job.prior]
    for target in targets:
        if target.benchmark in names:
            raise UserError(f"prior: {target.benchmark!r} is the target's name; give the benchmark another name.")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"prior: two benchmarks are named {name!r}; give one of them another name.")


def shows_images(target: Target, prior: Sequence[PriorBenchmark]) -> str | None:
    """The first field whose questions show images, whatever the data; None where all are text, or may be."""
    if not (isinstance(target, Arithmetic) or (isinstance(target, Banner) and target.path is not None)):
        return f"target: {target.benchmark}"
    for one in prior:
        public_images = isinstance(one, PublicPrior) and public.MODULES[one.benchmark].SOURCES[one.benchmark].images
        if isinstance(one, Prior) or public_images:
            return f"prior: {one.name}"
    return None


def prior_questions(prior: PriorBenchmark, seed: int, told: list[str]) -> Iterator[tuple[str, Iterator[Question]]]:
    """A prior benchmark's questions by split, each to be taken before the next; no image is in both.

    `told` gets warnings for a person.
    """
    if isinstance(prior, Imported):
        yield from imported.splits(prior, seed)
        return
    if isinstance(prior, PublicPrior):
        yield from public_questions.splits(prior, seed, told)
        return
    for split, number in (("test", prior.questions), ("validation", prior.validation), ("train", prior.train)):
        if number is None:
            continue
        yield split, catalog.prior_questions(prior.benchmark, number, seed, split, prior.dialect == "plain")


def prior_splits(prior: PriorBenchmark) -> list[str]:
    """The splits that a prior benchmark has: questions to learn from only where the study asks for some."""
    learned = getattr(prior, "train", None) or getattr(prior, "train_path", None)
    return ["test", "validation", *(["train"] if learned else [])]


def puzzles(source: Source, image_ids: list[str], target: Jigsaw, seed: int) -> Iterator[Question]:
    """Endless: one puzzle of every image, then a second one of every image, and so on."""

    def cut(image_ids: list[str], number: int) -> list[Question]:
        loaded = ((image_id, source.load(image_id)) for image_id in image_ids)
        return [jigsaw.puzzle(image, name, target, seed, number) for name, image in loaded if image is not None]

    for number in count():
        made = 0
        for batch in in_order(partial(cut, number=number), image_ids):
            made += len(batch)
            yield from batch
        if not made:
            raise UserError(
                f"images: none of the {len(image_ids)} image(s) of a split can be read, "
                f"among them {brief(source.skipped[-1])}; replace them or add more."
            )


def shard_names(job: MakeData) -> list[str]:
    """The files that the data stage writes."""
    priors = [prior_shard(prior.name, split) for prior in job.prior for split in prior_splits(prior)]
    return sorted([*(target_shard(split, name) for split in SPLITS for name in _targets(job)), *priors])


def inputs_digest(images: Images, prior: Sequence[PriorBenchmark], targets: Sequence[Target] = ()) -> str:
    """Digest of the user's files that are read, by name and content; empty if there are none."""
    files = [("images", *file) for file in input_files(images)]
    for target in targets:
        files += [("target", *file) for file in target_questions.input_files(target)]
    for benchmark in prior:
        if isinstance(benchmark, PublicPrior):
            files += [(benchmark.name, *file) for file in public_questions.input_files(benchmark)]
        if isinstance(benchmark, Imported):
            files += [(benchmark.name, *file) for file in imported.input_files(benchmark)]
    return content_key([(*names, _digest(path)) for *names, path in files]) if files else ""


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError:
        # The data stage says what it cannot read.
        return "unreadable"
