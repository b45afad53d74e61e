"""How a model sees a study's questions is told before time is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from architectures import made
from PIL import Image

from holdfast.config.jobs import Check
from holdfast.config.refs import DataRef, ModelRef
from holdfast.config.study import Study
from holdfast.data.shards import Question, png, read_questions
from holdfast.models.load import save_checkpoint
from holdfast.stages.preflight import check
from holdfast.stages.seen import foreign_dialect, shrunk_images

ARMS = {"a": [{"method": "sft", "source": "answers", "trainer": {"max_steps": 2}}]}


def study(path: str, **said: Any) -> Study:
    return Study.model_validate({"name": "s", "arms": ARMS, **said, "model": {"path": path, **said.get("model", {})}})


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """A checkpoint of another vocabulary than the bundled base's, and its processor."""
    model, processor = made("qwen2_5_vl")
    processor.tokenizer.add_tokens(["another"])
    model.resize_token_embeddings(len(processor.tokenizer))
    place = tmp_path_factory.mktemp("other") / "base"
    save_checkpoint(model, processor, place)
    return str(place), processor


def test_a_model_that_was_not_taught_the_bundled_dialect_is_told(
    tiny_data: DataRef, tiny_model: ModelRef, processor: Any, other: tuple[str, Any]
) -> None:
    path, foreign = other
    [told] = foreign_dialect(study(path), foreign)
    assert told.startswith("prior: asked as the bundled base was taught, about pictures of 64 pixels a side: color, sh")
    assert "write {benchmark: color, dialect: plain}" in told
    assert told in check(Check(study=study(path), data=tiny_data))["told"]


def test_who_speaks_the_dialect_or_is_asked_in_plain_words_is_told_nothing(
    tiny_model: ModelRef, processor: Any, other: tuple[str, Any]
) -> None:
    path, foreign = other
    assert foreign_dialect(study("bundled"), processor) == []
    assert foreign_dialect(study(tiny_model.path), processor) == [], "it stems from the bundled base"
    plain = [{"benchmark": "color", "dialect": "plain"}]
    assert foreign_dialect(study(path, prior=plain), foreign) == []
    mixed = [*plain, "shape", {"benchmark": "pope"}]
    assert foreign_dialect(study(path, prior=mixed), foreign)[0].split(". ")[0].endswith("a side: shape")


def shown(question: Question, *sizes: tuple[int, int]) -> Question:
    return question._replace(images=tuple(png(Image.new("RGB", size)) for size in sizes))


def test_images_that_the_processor_shrinks_are_counted_by_shard(
    tiny_data: DataRef, other: tuple[str, Any], tmp_path: Path
) -> None:
    """By hand: 3136 = 56·56 pixels at most. 504×504 → 56×56; of 560×140 each side is divided by √(78400/3136) = 5."""
    path, foreign = other
    [question, *_] = read_questions(tiny_data.path / "prior-color.parquet")
    shards = {
        "a.parquet": [shown(question, (504, 504), (56, 56)), shown(question, (560, 140))],
        "b.parquet": [shown(question, (56, 56)), shown(question)],
    }
    foreign.image_processor.size = type(foreign.image_processor.size)(shortest_edge=784, longest_edge=3136)
    [told] = shrunk_images(study(path, model={"max_pixels": 3136}), foreign, shards)
    assert told == (
        "the processor shrinks 2 images to at most 3,136 pixels (model.max_pixels): 2 of 3 in a.parquet. "
        "The largest, of 504×504 pixels, is seen at 56×56."
    )
    assert shrunk_images(study(path), foreign, {"b.parquet": shards["b.parquet"]}) == []
    wide = {"a.parquet": shards["a.parquet"][1:]}
    assert shrunk_images(study(path), foreign, wide)[0].endswith("of 560×140 pixels, is seen at 112×28.")


def test_the_check_tells_that_a_bound_shrinks_puzzles(tiny_data: DataRef, other: tuple[str, Any]) -> None:
    bounds = {"min_pixels": 784, "max_pixels": 3136}
    told = check(Check(study=study(other[0], model=bounds), data=tiny_data))["told"]
    assert any(
        " images to at most 3,136 pixels (model.max_pixels): 24 of 24 in target-train.parquet" in line for line in told
    ), told
