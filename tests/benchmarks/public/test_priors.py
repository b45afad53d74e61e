"""Public benchmarks as priors: local copies of their schema, the right score of known answers, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import prior_sets
import pytest
from public_sets import SIZE, write

from holdfast.benchmarks.catalog import judge
from holdfast.benchmarks.dataset import inputs_digest, make_data
from holdfast.benchmarks.public.benchmarks import MODULES, check, source_of
from holdfast.benchmarks.public.boxes import FAMILIES
from holdfast.benchmarks.public.protocol import Manner
from holdfast.benchmarks.public.questions import splits
from holdfast.config.images import World
from holdfast.config.jobs import MakeData
from holdfast.config.prior import PublicPrior
from holdfast.config.study import Study
from holdfast.config.targets import Jigsaw
from holdfast.data.shards import Question, read_questions
from holdfast.errors import UserError
from holdfast.evaluation.records import Record, metrics

NEED_A_LIBRARY = {"math500": "math_verify", "ifeval": "lm_eval"}
NAMES = [name for name in prior_sets.FEATURES if name not in NEED_A_LIBRARY]


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("priors")
    return {name: prior_sets.copy(folder / name, name) for name in prior_sets.FEATURES}


def prior(copies: dict[str, Path], name: str, **more: Any) -> PublicPrior:
    boxes = {"boxes": "unit"} if name == "refcoco" else {}
    return PublicPrior(benchmark=name, data=str(copies[name]), **{"questions": 8, "validation": 4, **boxes, **more})


def asked(one: PublicPrior, seed: int = 0) -> dict[str, list[Question]]:
    return {split: list(questions) for split, questions in splits(one, seed, [])}


def records(questions: Sequence[Question], completions: Sequence[str]) -> Iterator[Record]:
    for question, completion in zip(questions, completions, strict=True):
        found = judge(question, completion)
        yield Record(
            *(question.benchmark, "prior", "test", question.id, question.image_id, question.prompt, completion),
            *(found.parsed, question.answer, found.correct, found.score, 0.0, 1, question.grader),
            *(found.strict, found.authors, found.group),
        )


def test_every_benchmark_has_a_copy_of_its_schema() -> None:
    assert {MODULES[name] for name in prior_sets.FEATURES} == set(MODULES.values())


@pytest.mark.parametrize("name", NAMES)
def test_references_are_right_in_every_reading_and_other_questions_answers_are_not(
    copies: dict[str, Path], name: str
) -> None:
    found = asked(prior(copies, name, questions=None))["test"]
    right = metrics(list(records(found, [question.reference for question in found])))
    assert right[f"prior/{name}/accuracy"] == right[f"prior/{name}/strict"] == 1.0
    assert right[f"prior/{name}/unparsed"] == 0.0
    authors = {measure: value for measure, value in right.items() if "/authors_" in measure}
    whole = {"authors_perception": 400.0, "authors_cognition": 200.0}
    assert authors
    assert authors == {measure: whole.get(measure.rpartition("/")[2], pytest.approx(1.0)) for measure in authors}
    nothing = metrics(list(records(found, ["I cannot say."] * len(found))))
    assert nothing[f"prior/{name}/accuracy"] == nothing[f"prior/{name}/strict"] == 0.0
    assert all(value == 0.0 for measure, value in nothing.items() if "/authors_" in measure)


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_no_picture_and_follow_the_seed(copies: dict[str, Path], name: str) -> None:
    one = asked(prior(copies, name))
    assert {question.image_id for question in one["test"]}.isdisjoint(q.image_id for q in one["validation"])
    assert asked(prior(copies, name)) == one
    assert asked(prior(copies, name), seed=1) != one
    assert 0 < len(one["validation"]) <= 4 or name in ("docvqa", "refcoco", "pope")
    source = source_of(prior(copies, name))
    assert all(bool(question.images) == bool(source.images) for question in one["test"])


def test_mme_is_drawn_by_pairs_and_plus_wants_both(copies: dict[str, Path]) -> None:
    found = asked(prior(copies, "mme"))["test"]
    pairs = [question.image_id for question in found]
    assert len(found) == 8
    assert all(pairs.count(pair) == 2 for pair in pairs)
    scored = metrics(list(records(found, ["Yes"] * 8)))
    assert scored["prior/mme/accuracy"] == 0.5
    assert scored["prior/mme/accuracy_plus"] == 0.0
    half = ["Yes" if question.image_id == pairs[0] and question.answer == "yes" else "No" for question in found]
    assert metrics(list(records(found, half)))["prior/mme/accuracy_plus"] == 0.25


def test_mmstar_is_the_mean_over_kinds_of_questions_of_unlike_numbers() -> None:
    rows = [
        Record("mmstar", "prior", "test", str(n), "", "", "", "A", "A", right, float(right), 0.0, 1, "mmstar", *rest)
        for n, (right, *rest) in enumerate([(True, True, 1.0, "a"), *[(False, False, 0.0, "b")] * 3])
    ]
    assert metrics(rows)["prior/mmstar/authors_average"] == 0.5
    assert metrics(rows)["prior/mmstar/accuracy"] == 0.25


def test_pope_tells_a_model_that_says_yes_to_everything(copies: dict[str, Path]) -> None:
    found = asked(prior(copies, "pope", questions=12))["test"]
    scored = metrics(list(records(found, ["Yes."] * len(found))))
    assert scored["prior/pope/yes_share"] == 1.0
    assert scored["prior/pope/accuracy"] == 0.5
    assert scored["prior/pope/f1"] == pytest.approx(2 / 3)
    assert scored["prior/pope/authors_accuracy"] == scored["prior/pope/strict"] == 0.0


def test_mmmu_draws_no_option_where_none_can_be_read(copies: dict[str, Path]) -> None:
    found = asked(prior(copies, "mmmu", questions=None))["test"]
    verdicts = [judge(question, "???") for question in found]
    assert [(one.correct, one.authors) for one in verdicts] == [(False, 0.0)] * len(found)
    shown = {question.prompt.count("<image"): len(question.images) for question in found}
    assert shown == {1: 1, 2: 2}


@pytest.mark.parametrize(
    ("name", "completion", "verdict"),
    [
        ("mmstar", "It is a {right}.", (True, False)),
        ("mmstar", "It is a cat or a dog.", (False, False)),
        ("mmstar", "<think> A or B? </think> ({letter})", (True, False)),
        ("mmstar", "\\boxed{{{letter}}}", (True, False)),
        ("mmstar", "{letter}", (True, True)),
        ("pope", "Yes, there is.", (True, False)),
        ("pope", "<think> no? </think> yes", (True, True)),
        ("mme", "Yes", (True, True)),
        ("mme", "There is, so the answer is yes", (True, False)),
        ("gsm8k", "So it is \\boxed{{{number}}}", (True, False)),
        ("gsm8k", "It is {number}.", (True, False)),
        ("gsm8k", "Plain.\n#### {number}", (True, True)),
        ("gsm8k", "{number} and then 7", (False, False)),
        ("gsm8k", "#### {number}\n\nQuestion: What is 7?", (True, True)),
        ("mmlu-pro", "The answer is ({letter}).", (True, True)),
        ("mmlu-pro", "{letter}", (True, False)),
        ("arc", " B", (True, True)),
        ("arc", " a dog", (True, False)),
        ("gpqa", "The answer is {letter}.", (True, True)),
        ("gpqa", "I think it is ({letter})", (True, False)),
        ("docvqa", "<answer> {number} dollars </answer>", (True, False)),
    ],
)
def test_form_and_knowledge_are_told_apart(
    copies: dict[str, Path], name: str, completion: str, verdict: tuple[bool, bool]
) -> None:
    questions = asked(prior(copies, name, questions=None))["test"]
    question = next(q for q in questions if q.answer in ("yes", "B") or name in ("gsm8k", "docvqa", "gpqa", "mmlu-pro"))
    given = completion.format(
        letter=question.answer.strip("()"), right="dog", number=question.answer.removesuffix(" dollars")
    )
    found = judge(question, given)
    assert (found.correct, found.strict) == verdict


def test_prompts_are_the_authors_and_what_a_study_sets_wins(copies: dict[str, Path]) -> None:
    def prompt(name: str, **more: Any) -> Question:
        return asked(prior(copies, name, **more))["test"][0]

    assert prompt("docvqa").prompt.endswith("?\nAnswer the question using a single word or phrase.")
    assert "yes or no" not in prompt("mme").prompt
    assert prompt("mmstar").prompt.endswith(
        "D: a red fish\nAnswer with the option's letter from the given choices directly"
    )
    assert prompt("arc").prefill == "The best answer is"
    own = prompt("arc", suffix=" Which?", system="Be brief.", prefill="It is", thinking=True)
    assert own.prompt.endswith("D. a fish Which?\nThink in <think> </think> first.")
    assert (own.system, own.prefill) == ("Be brief.", "It is")
    assert prompt("arc", thinking=True).prefill == ""
    assert prompt("gsm8k").prompt.count("Question: ") == 6
    assert prompt("gsm8k", shots=0).prompt.count("Question: ") == 1
    solved = prompt("mmlu-pro").prompt
    subject = json.loads(prompt("mmlu-pro").details)["category"]
    assert solved.startswith(f"The following are multiple choice questions (with answers) about {subject}.")
    assert (solved.count("Options:"), solved.count("The answer is (")) == (6, 5)


def test_gpqa_keeps_what_names_of_compounds_have_in_brackets() -> None:
    row = {**prior_sets.gpqa(0), "Correct Answer": " bicyclo[2.2.1]heptane [title]x "}
    [posed] = MODULES["gpqa"].pose(row, None, Manner())
    assert ") bicyclo[2.2.1]heptane. x\n" in f"{posed.prompt}\n"


@pytest.mark.parametrize(
    ("name", "there"), [("gsm8k", "have 24"), ("mmlu-pro", "of category (law|physics) .* have 12")]
)
def test_more_solved_examples_than_there_are_is_a_sentence(copies: dict[str, Path], name: str, there: str) -> None:
    told = rf"prior\.{name}\.shots: 25 solved examples.* {there}; ask for at most so many\."
    with pytest.raises(UserError, match=told):
        asked(prior(copies, name, shots=25))
    number = 24 if name == "gsm8k" else 12
    assert asked(prior(copies, name, shots=number))["test"][0].prompt.count("Question:") == number + 1


@pytest.mark.parametrize("family", FAMILIES)
def test_boxes_survive_the_way_into_a_models_coordinates_and_back(copies: dict[str, Path], family: str) -> None:
    found = asked(prior(copies, "refcoco", boxes=family))["test"]
    for question in found:
        verdict = judge(question, question.reference)
        assert verdict.correct
        assert verdict.strict
        assert verdict.score > 0.9
        fenced = judge(question, f"```json\n[{question.reference}]\n```")
        assert fenced.score > 0.9
    quarter = {"unit": "0.25 0.25 0.75 0.75", "qwen2.5-vl": "28 21 84 63"}
    assert found[0].answer == quarter.get(family, "250 250 750 750")
    # What is right in one family's unit is wrong in another's.
    for other in (name for name in FAMILIES if FAMILIES[name].unit != FAMILIES[family].unit):
        [foreign, *_] = asked(prior(copies, "refcoco", boxes=other))["test"]
        if foreign.answer != found[0].answer:
            assert not judge(foreign, found[0].reference).correct


def test_internvl_is_asked_in_its_own_words_and_read_without_its_marks(copies: dict[str, Path]) -> None:
    [question, *_] = asked(prior(copies, "refcoco", boxes="internvl"))["test"]
    expression = json.loads(question.details)["answer"]
    assert question.prompt.endswith(f"the region this sentence describes: <ref>{expression}</ref>")
    assert question.reference == f"<ref>{expression}</ref><box>[[250, 250, 750, 750]]</box>"
    assert judge(question, f"{expression}[[250, 250, 750, 750]]").strict
    assert not judge(question, f"I see {expression} at [250, 250, 750, 750].").strict


def test_a_large_picture_has_the_size_that_qwens_processor_gives_it() -> None:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    from holdfast.benchmarks.public.boxes import fitted_size

    for width, height in ((100, 80), (640, 480), (3000, 20), (17, 40), (5000, 4000), (1000, 1400)):
        rows, columns = smart_resize(height, width, 28, 56 * 56, 1_605_632)
        assert fitted_size((width, height), 1_605_632, 28) == (columns, rows)


def test_data_holds_them_beside_bundled_ones_whose_bytes_stay(copies: dict[str, Path], tmp_path: Path) -> None:
    target = Jigsaw(train=2, validation=1, test=1)
    alone = MakeData(images=World(), target=target, prior=[{"benchmark": "color", "questions": 2, "validation": 1}])
    both = alone.model_copy(update={"prior": (*alone.prior, prior(copies, "gsm8k"), prior(copies, "mme"))})
    for name in ("alone", "both"):
        (tmp_path / name).mkdir()
    make_data(alone, tmp_path / "alone")
    make_data(both, tmp_path / "both")
    for path in (tmp_path / "alone").iterdir():
        assert path.read_bytes() == (tmp_path / "both" / path.name).read_bytes()
    assert len(read_questions(tmp_path / "both" / "prior-mme.parquet")) == 8
    again = read_questions(tmp_path / "both" / "prior-gsm8k.parquet")
    assert again == asked(prior(copies, "gsm8k"))["test"]
    assert inputs_digest(World(), both.prior) != inputs_digest(World(), both.prior[:2])


def test_large_pictures_are_scaled_down_and_counted(copies: dict[str, Path]) -> None:
    told: list[str] = []
    found = {split: list(rows) for split, rows in splits(prior(copies, "mmstar", pixels=2000), 0, told)}
    assert told == ["12 image(s) of mmstar are scaled down to 2000 pixels."]
    assert all(len(question.images[0]) < 3 * 2000 + 200 for question in found["test"])
    assert SIZE[0] * SIZE[1] > 2000


def test_a_row_whose_picture_cannot_be_read_is_left_out_and_counted(tmp_path: Path) -> None:
    made = [prior_sets.mmstar(number) for number in range(8)]
    made[3]["image"], made[4]["image"] = None, {"bytes": b"damaged", "path": None}
    features = datasets.Features({**prior_sets.FEATURES["mmstar"], "image": datasets.Image(decode=False)})
    folder = write(tmp_path / "own", features, {"val": made})
    told: list[str] = []
    one = PublicPrior(benchmark="mmstar", data=str(folder), questions=None)
    found = [question.id for _, questions in splits(one, 0, told) for question in questions]
    assert sorted(found) == [f"mmstar-{number:06d}" for number in (0, 1, 2, 5, 6, 7)]
    assert told == ["2 row(s) of mmstar have images that cannot be read: left out."]


def test_a_missing_column_is_a_sentence(tmp_path: Path) -> None:
    features = {**prior_sets.FEATURES["gsm8k"]}
    rows = [{"question": "?", "solution": "1"}] * 3
    features["solution"] = features.pop("answer")
    folder = write(tmp_path / "own", datasets.Features(features), {"test": rows})
    with pytest.raises(UserError, match=r"prior\.gsm8k: .* has no column 'answer' \(it has question, solution\)"):
        asked(PublicPrior(benchmark="gsm8k", data=str(folder), shots=0))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"benchmark": "refcocog", "boxes": "unit"},
            r"prior\.refcocog\.revision: name the commit of lmms-lab-encoder/RefCOCOg",
        ),
        (
            {"benchmark": "gsm8k", "data": "somebody/gsm8k"},
            r"prior\.gsm8k\.revision: name the commit of somebody/gsm8k",
        ),
        ({"benchmark": "refcoco", "revision": "a"}, r"prior\.refcoco\.boxes: say how your model writes boxes"),
        ({"benchmark": "pope", "revision": "a", "boxes": "unit"}, r"prior\.pope\.boxes: pope asks for no boxes"),
        ({"benchmark": "arc", "shots": 3}, r"prior\.arc\.shots: arc has no solved examples"),
    ],
)
def test_what_cannot_be_read_one_way_is_refused_before_anything_is_read(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        check(PublicPrior(**fields))


def test_ifeval_has_no_gradient_to_select_or_trace_by() -> None:
    stage = {"method": "sft", "source": "answers"}
    selected = {**stage, "select": {"by": "random", "keep": 0.5}}
    assert Study(name="a", prior=["ifeval"], arms={"a": [stage]})
    for more in ({"arms": {"a": [selected]}}, {"arms": {"a": [stage]}, "influence": {}}):
        with pytest.raises(ValueError, match="prior: ifeval has no right answer whose gradient"):
            Study(name="a", prior=["ifeval"], **more)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, package in NEED_A_LIBRARY.items():
        monkeypatch.setattr(MODULES[name], "find_spec", lambda _: None)
        with pytest.raises(UserError, match=rf"prior\.{name}: answers are .*, .*missing; pip install"):
            check(PublicPrior(benchmark=name))
        assert package


@pytest.mark.skipif(find_spec("math_verify") is None, reason="make scorers has math-verify")
def test_expressions_are_compared_and_the_box_is_form(copies: dict[str, Path]) -> None:
    found = asked(prior(copies, "math500"))["test"]
    right = metrics(list(records(found, [question.reference for question in found])))
    assert right["prior/math500/accuracy"] == right["prior/math500/strict"] == 1.0
    number = int(found[0].prompt.split()[2])
    unboxed = judge(found[0], f"The answer is ${number / 2}$.")
    assert (unboxed.correct, unboxed.strict) == (True, False)
    assert judge(found[0], "").parsed is None


@pytest.mark.skipif(find_spec("lm_eval") is None, reason="make scorers has lm-eval")
def test_instructions_are_checked_by_the_harnesss_own_program(
    copies: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its data for sentences, which these instructions do not need, may be missing.
    monkeypatch.setattr(MODULES["ifeval"], "require", lambda: None)
    found = asked(prior(copies, "ifeval"))["test"]
    assert {question.reference for question in found} == {""}
    given = ["A cat sat.", "A cat, a dog.", "Here, then:\nA cat sat.", "A dog sat."] * 2
    scored = metrics(list(records(found, given)))
    assert scored["prior/ifeval/authors_prompt_strict"] == scored["prior/ifeval/strict"] == 0.25
    assert scored["prior/ifeval/authors_prompt_loose"] == scored["prior/ifeval/accuracy"] == 0.5
    assert scored["prior/ifeval/authors_instruction_strict"] == 5 / 8
    assert scored["prior/ifeval/authors_instruction_loose"] == 6 / 8
