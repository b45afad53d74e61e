"""Stories can be worked out from their text, no two splits share one, and an answer is read however it is given."""

from __future__ import annotations

import re
from pathlib import Path

import datasets
import prior_sets
import public_sets
import pytest

from holdfast.benchmarks import catalog
from holdfast.benchmarks.dataset import make_data
from holdfast.benchmarks.question import Annotation, Draw, TargetQuestion
from holdfast.benchmarks.targets import arithmetic
from holdfast.config.jobs import MakeData
from holdfast.config.study import Study
from holdfast.config.targets import Arithmetic, Columns, Public
from holdfast.data.shards import read_questions

TARGET = Arithmetic(benchmark="arithmetic")


def drawn(count: int, split: str = "train", difficulty: float = 0.5) -> list[TargetQuestion]:
    target = TARGET.model_copy(update={"difficulty": difficulty})
    return [arithmetic.ask(target, Draw(0, split, number)) for number in range(count)]


def worked_out(prompt: str) -> tuple[int, int]:
    """What a reader of the story counts, and its steps."""
    start, *events = prompt.split(". ")
    there = int(re.search(r"has (\d+)", start)[1])
    for event in events[:-1]:
        numbers = [int(number) for number in re.findall(r"\d+", event)]
        if "more" in event:
            there += numbers[0]
        elif "away" in event:
            there -= numbers[0]
        elif "packs" in event:
            there += numbers[0] * numbers[1]
        elif "times" in event:
            there *= numbers[0]
        else:
            people = numbers[0] + 1 if numbers else 2
            assert there % people == 0
            there //= people
        assert there > 0
    return there, len(events) - 1


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
def test_a_story_can_be_worked_out_and_its_reasoning_is_right(difficulty: float) -> None:
    lengths = set()
    for question in drawn(200, difficulty=difficulty):
        answer, steps = worked_out(question.prompt)
        assert question.answer == str(answer)
        assert question.group == f"{steps} steps"
        lengths.add(steps)
        for left, right in re.findall(r"([\d+*/ -]+) = (\d+)", question.reasoning):
            assert eval(left) == int(right)
        assert question.images == ()
    assert lengths == set(range(2, 4 + round(2 * difficulty)))


def test_no_two_splits_tell_a_story_of_the_same_numbers_and_another_seed_draws_others() -> None:
    told = {split: {events(one.prompt) for one in drawn(600, split, 0.0)} for split in ("train", "validation", "test")}
    assert not told["train"] & told["test"]
    assert not told["validation"] & (told["train"] | told["test"])
    assert arithmetic.ask(TARGET, Draw(1, "test", 0)) != arithmetic.ask(TARGET, Draw(0, "test", 0))


def events(prompt: str) -> tuple[str, ...]:
    """A story without its names and things."""
    start, *told = prompt.split(". ")
    return (start.split()[2], *(re.sub(r"^(Then )?\w+ ", "", event) for event in told[:-1]))


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("<think> 3 + 4 </think> <answer> 42 </answer>", "42"),
        ("First 3 * 4 = 12, so there are 42.", "42"),
        (r"2 and 40 give \boxed{42}, not 41.", "42"),
        ("40 + 2 = 42\n#### 42", "42"),
        ("It is 1,042.", "1042"),
        ("<answer> 41 or 42 </answer>", None),
        ("<answer> 42 </answer> <answer> 41 </answer>", None),
        ("<think> 42", None),
        ("I do not know.", None),
    ],
)
def test_an_answer_is_read_from_its_tags_or_else_is_the_last_number(said: str, read: str | None) -> None:
    found = catalog.grade("arithmetic", said, "42")
    assert found.parsed == read
    assert found.correct == (read == "42")
    assert found.score == float(found.correct)


@pytest.mark.parametrize(
    ("answer", "expected"), [("It is <<2*600=1200>>so.\n#### 1,200", "1200"), ("-3", "-3"), ("#### many", None)]
)
def test_a_row_of_gsm8k_is_its_number_after_its_solution(answer: str, expected: str | None) -> None:
    found = arithmetic.read(Annotation((), question="How many?", answer=answer), TARGET, Draw(0, "train", 0))
    assert (found and found.answer) == expected
    assert found is None or "<<" not in found.reasoning


def test_a_study_learns_from_gsm8ks_training_problems_and_is_tested_on_others(tmp_path: Path) -> None:
    rows = {"train": [prior_sets.gsm8k(number) for number in range(40)]}
    rows["test"] = [prior_sets.gsm8k(number) for number in range(36, 48)]
    copy = public_sets.write(tmp_path / "gsm8k", datasets.Features(prior_sets.FEATURES["gsm8k"]), rows)
    columns = Columns(image=None, question="question", answer="answer", splits=("train", "train", "test"))
    public = Public(name=str(copy), columns=columns)
    target = Arithmetic(benchmark="arithmetic", public=public, train=60, validation=4, test=12)
    arms = {"teacher": [{"method": "sft", "source": "teacher"}]}
    study = Study(name="a", target=target, prior=["color"], arms=arms)
    out = tmp_path / "data"
    out.mkdir()
    notes = make_data(MakeData(images=study.images, target=target, prior=study.prior), out)
    shards = {split: read_questions(out / f"target-{split}.parquet") for split in ("train", "validation", "test")}
    asked = {split: {question.prompt for question in questions} for split, questions in shards.items()}
    assert [len(asked[split]) for split in ("test", "validation")] == [12, 2]
    # Four training problems are asked in the test.
    assert 30 < len(asked["train"]) <= 40 - 2
    assert not asked["train"] & (asked["test"] | asked["validation"])
    assert "since another split shows their question" in notes["told"][0]
    first = shards["train"][0]
    assert catalog.grade(first.grader, first.teacher, first.answer).correct
    assert "It is so." in first.teacher
