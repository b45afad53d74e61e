"""Thirty faults of the campaign, drawn by a fixed seed: after each, the same command ends with the same results."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from faults.bed import beds
from faults.campaign import table
from faults.draw import KINDS, draw
from faults.outcome import UNABLE, outcome

from holdfast.config.refs import ModelRef

SEED, COUNT = 1, 30
FAULTS = [draw(SEED, number, layers=("stages",)) for number in range(COUNT)]


@pytest.fixture(scope="module")
def outcomes(tiny_model: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What came of every fault, by its number; two at a time, each in a repository of its own."""
    own = threading.local()
    with beds(tmp_path_factory.mktemp("faults"), Path(tiny_model.path), count=2) as made:
        free = list(made)

        def take() -> None:
            own.bed = free.pop()

        with ThreadPoolExecutor(len(made), initializer=take) as pool:
            found = pool.map(lambda fault: outcome(own.bed, fault, short=True), FAULTS)
            return {line["number"]: line for line in found}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.label)
def test_after_a_fault_the_same_command_ends_with_the_same_results(fault: Any, outcomes: dict) -> None:
    found = outcomes[fault.number]
    if found["outcome"] == UNABLE:
        pytest.skip(found["problems"][0])
    assert found["outcome"] != "failed", found["problems"]


def test_a_seed_draws_the_same_faults_again_and_every_kind_is_drawn() -> None:
    drawn = [draw(5, number) for number in range(300)]
    assert drawn == [draw(5, number) for number in range(300)]
    drawn += [draw(5, number, ("ranks",)) for number in range(10)]
    assert {(fault.layer, fault.kind) for fault in drawn} == {(kind.layer, kind.name) for kind in KINDS}


def test_the_table_counts_what_came_out_the_same_and_names_the_rest() -> None:
    faults = [draw(5, 0)._asdict() for _ in range(3)]
    results = ["same results", "same results", "failed"]
    text = table([{**fault, "outcome": result} for fault, result in zip(faults, results, strict=True)])
    assert "3 faults" in text
    assert "| 2, 1 failed |" in text
