"""`make base`: build the bundled base model that comes with holdfast anew, and record what it scores.

Run: python -m holdfast.stages.ship_base [SEED]. Takes more than half an hour on two cores.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from holdfast.benchmarks import catalog
from holdfast.config.model import Recipe
from holdfast.config.refs import ModelRef, directory_digest
from holdfast.evaluation.generate import Reader, answer
from holdfast.journal import Journal
from holdfast.models.load import load_model, load_processor
from holdfast.models.tiny.build import build_base
from holdfast.models.tiny.shipped import DIRECTORY, RECORD

QUESTIONS = 400
"""Of each benchmark; drawn for validation, so none of them is in a test."""
LIMIT, BATCH = 96, 100


def main(seed: int = 0) -> None:
    """Build into a temporary place, then replace the base and its record."""
    recipe = Recipe()
    with tempfile.TemporaryDirectory() as place:
        build_base(recipe, seed, Path(place), Journal(Path(place)))
        shutil.rmtree(DIRECTORY, ignore_errors=True)
        shutil.copytree(Path(place) / "model", DIRECTORY)
    write_record(seed, recipe)


def write_record(seed: int, recipe: Recipe) -> None:
    """What the base is and what it scores, beside its weights."""
    content = {
        "digest": directory_digest(DIRECTORY),
        "command": f"python -m holdfast.stages.ship_base {seed}",
        "seed": seed,
        "recipe": recipe.model_dump(mode="json", exclude={"threads"}),
        "questions": QUESTIONS,
        "accuracy": accuracies(ModelRef(path=str(DIRECTORY), digest=""), QUESTIONS),
    }
    RECORD.write_text(json.dumps(content, indent=1) + "\n")


def accuracies(base: ModelRef, count: int) -> dict[str, float]:
    """Accuracy on so many questions of every bundled benchmark of prior knowledge."""
    model, reader = load_model(base), Reader(load_processor(base), BATCH)
    found = {}
    for name in catalog.PRIOR:
        questions = list(catalog.prior_questions(name, count, 0, "validation"))
        references = [reader.completion_ids(question.reference) for question in questions]
        written, _ = answer(model, reader, reader.encode(questions), references, LIMIT)
        grades = [
            catalog.grade(q.grader, reader.text(ids), q.answer) for q, ids in zip(questions, written, strict=True)
        ]
        found[name] = sum(grade.correct for grade in grades) / count
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
