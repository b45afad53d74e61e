"""Every experiment file is one that works: its fields, TRL's and peft's arguments, and the memory that it states."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from mrcl_set import mrcl, written
from published import PARAMETERS, without_weights

from flows.commands.experiment import load_experiment, studies_of
from flows.hours import Times, study_times
from flows.preflight import Preflight
from holdfast.benchmarks.public.rows import REVISIONS
from holdfast.config.images import Hub
from holdfast.config.methods import SFT
from holdfast.config.study import Study
from holdfast.influence.parts import choose, parts_of
from holdfast.models.lora import adapted, lora_config
from holdfast.stages.fit import Lengths, Need, need_of, shape_for
from holdfast.stages.needs import Batch, forward
from holdfast.training.arguments import anywhere

TABLE = Path(__file__).parents[1] / "docs" / "models.md"
EXPERIMENTS = sorted((Path(__file__).parents[1] / "experiments").glob("*.yaml"))
PUZZLE = Lengths(410, 30, 1296, read=1500, seen=5120)
"""Of a puzzle of 504×504 pixels: 18×18 tokens of 4 patches each, the question and the chat's frame; and of the longest
question of a benchmark, as the files assume, a picture of 1,280 tokens and 220 of text."""
PROBLEM = Lengths(300, 450, 0, read=800)
"""Of a problem of GSM8K and its longest worked solution, and of a question of a benchmark, as the file assumes."""
FIGURE = Lengths(410, 110, 1296, read=732, seen=2048)
"""Of a puzzle's size; and of a picture of 512 tokens of 4 patches, the most in mrcl-4b.yaml, and 220 of text."""
TOKEN, GATHERED = 0.035, 0.043
"""Seconds of a generated token, and of gathering the layers of a model in parts for it."""
CARDS = {"A100": 312e12, "H100": 989e12, "H200": 989e12}
"""Operations a second, of which a third is reached."""
STATED = {
    "step": r"a reinforced step takes ([\d.]+) GB",
    "supervised": r"a supervised one ([\d.]+) GB",
    "along": r"along the way ([\d.]+) GB",
    "evaluation": r"an evaluation (?:takes )?([\d.]+) GB",
    "influence": r"nfluence(?: takes|, which [a-z ]+,)? ([\d.]+) GB",
    "weights": r"([\d.]+) GB of weights come from the Hub",
}
"""Memory, and what is downloaded, as a file's head says it."""
HOURS = re.compile(r"(training|sampling|evaluation|influence) ([\d.]+) h")
IN_ALL = re.compile(r"([\d.]+) h in all")
COMMIT = re.compile("[0-9a-f]{40}")


@pytest.fixture(autouse=True)
def with_mrcl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of its tasks, where mrcl-4b.yaml looks for them."""
    written(mrcl(tmp_path / "mrcl"))
    monkeypatch.chdir(tmp_path)


def studies(file: Path) -> list[Study]:
    return studies_of(load_experiment(file))


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_an_experiment_file_describes_studies_whose_arguments_are_taken(file: Path) -> None:
    assert studies(file)
    for study in studies(file):
        assert study.name.startswith(file.stem)
        for stages in study.trained.values():
            for stage in stages:
                anywhere(stage, study.evaluation.max_new_tokens)
                lora_config(stage.lora or {})


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_what_an_experiment_reads_from_the_hub_has_a_commit(file: Path) -> None:
    for study in studies(file):
        read = {study.model.path: study.model.revision}
        if isinstance(study.images, Hub):
            read[study.images.name] = study.images.revision
        for target in study.all_targets.values():
            if public := getattr(target, "public", None):
                read[public.name] = public.revision or REVISIONS.get(public.name)
        read.pop("bundled", None)
        assert all(COMMIT.fullmatch(revision or "") for revision in read.values()), read


def lengths_of(study: Study) -> Lengths:
    if study.target.benchmark == "banner":
        return FIGURE
    return PROBLEM if study.target.benchmark == "arithmetic" else PUZZLE._replace(completion=110)


def need(study: Study, arm: str) -> Need:
    [stage] = study.arms[arm]
    sampled = not isinstance(stage, SFT) or stage.source.kind == "rollouts"
    lengths = lengths_of(study)
    lengths = lengths._replace(completion=study.evaluation.max_new_tokens) if sampled else lengths
    model = adapted(without_weights(study.model.path), stage, 0)
    return need_of(stage, study, shape_for(model, study.influence), lengths, card=int(80e9))


LARGE = [
    pytest.param(file, marks=() if file.stem == "qwen3b-lora" else pytest.mark.slow, id=file.stem)
    for file in EXPERIMENTS
    if any(name in file.read_text() for name in PARAMETERS)
]


def card_of(text: str) -> float:
    """Operations a second of the card that a file counts with."""
    return CARDS[re.search(r"an? ([AH][12]00)'s", text)[1]] / 3


def preflight_of(study: Study, needs: dict[str, Need], rate: float) -> Preflight:
    """What the command's trials would find by arithmetic, on the longest samples and questions."""
    rows, limit = study.evaluation.batch_size, study.evaluation.max_new_tokens
    lengths = lengths_of(study)
    asked = Batch(rows, lengths.read, 0, lengths.seen)
    shape = next(iter(needs.values())).shape
    read = sum(forward(shape, asked)) / rate
    validated = sum(
        min(study.evaluation.validation, one.validation) for one in (*study.all_targets.values(), *study.prior)
    )
    tests = sum(one.test for one in study.all_targets.values()) + sum(one.questions for one in study.prior)
    evaluation = {"questions": rows, "seconds_reading": read, "seconds_writing": read + limit * TOKEN}
    evaluation |= {"prompts": rows, "seconds_comparing": 2 * read, "asked": tests + validated, "validated": validated}
    trials = {}
    for arm, one in needs.items():
        [stage] = study.arms[arm]
        drawn = 0 if isinstance(stage, SFT) else stage.trainer["max_completion_length"]
        token = TOKEN + GATHERED * (study.compute.gpus > 1)
        trials[f"arms.{arm}.0"] = {"seconds_a_step": one.operations / rate + drawn * token}
        if study.influence is not None:
            trials[f"arms.{arm}.0"]["influence"] = traced(study, arm, one, rate)
    checked = {"needs": {f"arms.{arm}.0": {"steps": one.steps} for arm, one in needs.items()}}
    return Preflight(checked, trials, evaluation)


def traced(study: Study, arm: str, one: Need, rate: float) -> dict[str, float]:
    """A forward and twice as much backward, for every part of the layers; of each benchmark, two questions."""
    settings, lengths = study.influence, lengths_of(study)
    assert settings is not None
    model = adapted(without_weights(study.model.path), study.arms[arm][0], 0)
    choose(model, settings.layers)
    benchmarks = len(study.all_targets) + len(study.prior)
    passes = 3 * len(parts_of(model, settings, benchmarks)) / rate
    samples = Batch(settings.samples, lengths.prompt, study.evaluation.max_new_tokens, lengths.patches)
    questions = Batch(2 * benchmarks, lengths.read, 0, lengths.seen)
    return {
        "samples": settings.samples,
        "questions": 2,
        "seconds_samples": passes * sum(forward(one.shape, samples)),
        "seconds_questions": passes * sum(forward(one.shape, questions)),
    }


def hours_of(study: Study, needs: dict[str, Need], rate: float) -> dict[str, float]:
    """Of a study on one card, or on all of its own, by the kinds of its stages."""
    times = study_times(study, preflight_of(study, needs, rate))
    assert times is not None
    return {kind: sum(getattr(one, kind) for one in times.values()) / 3600 for kind in Times._fields}


class Found(NamedTuple):
    """What arithmetic says of a file's first study."""

    memory: dict[str, float]
    """GB."""
    hours: dict[str, float]
    disk: float


@functools.cache
def found_of(file: Path) -> Found:
    study = studies(file)[0]
    needs = {arm: need(study, arm) for arm in study.arms}
    traced = [one.influence.total for one in needs.values() if one.influence is not None]
    trained = [one.memory for one in needs.values()]
    memory: dict[str, float] = {
        "step": needs["rft"].memory.step,
        "supervised": max(one.memory.step for arm, one in needs.items() if arm != "rft"),
        "along": max((one.total for one in trained if one.total > one.step), default=0),
        "evaluation": max(one.asking.total for one in needs.values()),
        "influence": max(traced, default=0),
        "weights": 2 * PARAMETERS[study.model.path],
    }
    disks = [one.disk for one in needs.values()]
    kept = len(studies(file)) * study.replicates * sum(disk.kept for disk in disks)
    return Found(
        {name: size / 1e9 for name, size in memory.items() if size},
        hours_of(study, needs, card_of(text_of(file))),
        (kept + max(disk.running for disk in disks)) / 1e9,
    )


def text_of(file: Path) -> str:
    return file.read_text().replace("\n# ", " ")


@pytest.mark.parametrize("file", LARGE)
def test_a_large_experiment_takes_the_memory_that_it_states(file: Path) -> None:
    text, memory = text_of(file), dict(found_of(file).memory)
    stated = {name: re.findall(pattern, text) for name, pattern in STATED.items()}
    assert not [name for name in stated if len(stated[name]) > 1], "each is said once"
    assert bool(stated["along"]) == ("along" in memory) != ("validation along the way no more" in text)
    assert {name: float(one) for name, [one] in ((name, one) for name, one in stated.items() if one)} == {
        name: pytest.approx(size, abs=0.06) for name, size in memory.items()
    }
    card = int(re.search(r"[Cc]ard\s+of\s+(\d+) GB", file.read_text())[1])
    assert max(memory.values()) < 0.9 * card


@pytest.mark.parametrize("file", LARGE)
def test_a_large_experiment_takes_the_hours_that_it_states(file: Path) -> None:
    """All kinds of stages, and their sum, by the same arithmetic as a preflight's after its trials."""
    hours = found_of(file).hours
    stated = {name: float(one) for name, one in HOURS.findall(text_of(file))}
    [in_all] = IN_ALL.findall(text_of(file))
    assert float(in_all) == pytest.approx(sum(hours.values()), abs=0.06)
    assert stated == {name: pytest.approx(one, abs=0.06) for name, one in hours.items()}


@pytest.mark.parametrize("file", LARGE)
def test_the_table_of_models_says_what_the_files_say(file: Path) -> None:
    """Card, training, evaluation, influence, time, disk and weights, rounded; of a sweep, all its studies' time."""
    [row] = [one for one in TABLE.read_text().splitlines() if one.startswith(f"| [{file.name}]")]
    _, _, card, training, evaluation, influence, time, disk, downloads = (one.strip() for one in row.split("|")[1:-1])
    memory, hours, kept = found_of(file)
    assert re.search(rf"[Cc]ard\s+of\s+{number(card)} GB", file.read_text())
    assert number(training) == round(max(memory["step"], memory.get("along", 0)))
    assert number(evaluation) == round(memory["evaluation"])
    assert number(influence) == round(memory.get("influence", 0))
    assert number(time) == round(len(studies(file)) * sum(hours.values()))
    assert number(disk) == round(kept)
    assert number(downloads) == round(memory["weights"])


def number(cell: str) -> int:
    """The first one before GB or h; nothing is 0."""
    found = re.findall(r"(\d+) (?:GB|h)\b", cell)
    return int(found[0]) if found else 0
