"""Every experiment file is one that works: its fields, TRL's and peft's arguments, and the memory that it states."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mrcl_set import mrcl, written
from published import PARAMETERS, without_weights

from flows.commands.experiment import load_experiment, studies_of
from holdfast.benchmarks.public.rows import REVISIONS
from holdfast.config.images import Hub
from holdfast.config.methods import SFT
from holdfast.config.study import Study
from holdfast.models.lora import adapted, lora_config
from holdfast.stages.fit import Lengths, Need, need_of, shape_for
from holdfast.training.arguments import anywhere

EXPERIMENTS = sorted((Path(__file__).parents[1] / "experiments").glob("*.yaml"))
PUZZLE = Lengths(410, 30, 1296)
"""Of a puzzle of 504×504 pixels: 18×18 tokens of 4 patches each, the question and the chat's frame."""
PROBLEM = Lengths(300, 450, 0)
"""Of a problem of GSM8K and its longest worked solution, as the file assumes."""
COMMIT = re.compile("[0-9a-f]{40}")
TRACED = re.compile(r"nfluence (?:takes |[a-z ]+, )?([\d.]+) GB")
STATED = re.compile(r"([\d.]+) GB at most|supervised one ([\d.]+) GB")


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


def need(study: Study, arm: str) -> Need:
    [stage] = study.arms[arm]
    sampled = not isinstance(stage, SFT) or stage.source.kind == "rollouts"
    lengths = PROBLEM if study.target.benchmark == "arithmetic" else PUZZLE._replace(completion=110)
    lengths = lengths._replace(completion=study.evaluation.max_new_tokens) if sampled else lengths
    model = adapted(without_weights(study.model.path), stage, 0)
    return need_of(stage, study, shape_for(model, study.influence), lengths, card=int(80e9))


LARGE = [
    pytest.param(file, marks=() if file.stem == "qwen3b-lora" else pytest.mark.slow, id=file.stem)
    for file in EXPERIMENTS
    if any(name in file.read_text() for name in PARAMETERS)
]


@pytest.mark.parametrize("file", LARGE)
def test_a_large_experiment_takes_the_memory_that_it_states(file: Path) -> None:
    study = studies(file)[0]
    needs = {arm: need(study, arm) for arm in study.arms}
    text = file.read_text().replace("\n# ", " ")
    stated = [float(one or other) for one, other in STATED.findall(text)]
    most = [needs["rft"].memory.total / 1e9, *(one.memory.total / 1e9 for arm, one in needs.items() if arm != "rft")]
    assert stated
    assert stated[0] == pytest.approx(most[0], rel=0.02)
    if len(stated) > 1:
        assert stated[1] == pytest.approx(max(most[1:]), rel=0.02)
    card = 141 if file.stem == "mrcl-4b" else int(re.search(r"[Cc]ard\s+of\s+(\d+) GB", file.read_text())[1])
    traced = [one.influence.total / 1e9 for one in needs.values() if one.influence is not None]
    assert [float(found) for found in TRACED.findall(text)] == (
        [pytest.approx(max(traced), rel=0.02)] if traced else []
    )
    assert max(*most, *traced) < 0.9 * card
