"""The bundled benchmarks by name: how their questions are drawn, how any answer is graded, what chance would score."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import count, product

import numpy as np

from holdfast.benchmarks.grading import graders, vqa
from holdfast.benchmarks.grading.answer import UNPARSED, Grade, Verdict
from holdfast.benchmarks.grading.lenient import final_answer, the_named, unmarked
from holdfast.benchmarks.grading.statements import stated
from holdfast.benchmarks.prior import color, comparison, digits, grounding, pieces, presence, shape
from holdfast.benchmarks.prior import count as count_
from holdfast.benchmarks.prior import plain as plain_dialect
from holdfast.benchmarks.public import questions as public_questions
from holdfast.benchmarks.public.benchmarks import MODULES as PUBLIC
from holdfast.benchmarks.question import PriorQuestion
from holdfast.benchmarks.targets import arithmetic, banner, classes, counting, detection, jigsaw, spatial
from holdfast.benchmarks.targets.protocol import DrawnTarget
from holdfast.config.targets import Banner, Jigsaw, Target
from holdfast.data.shards import Question, png
from holdfast.data.world import Scene, generator, world_scene

AskPrior = Callable[[Scene, np.random.Generator], PriorQuestion | None]
Grader = Callable[[str, str], Grade]

PRIOR = {
    "color": color,
    "shape": shape,
    "count": count_,
    "presence": presence,
    "comparison": comparison,
    "pieces": pieces,
    "grounding": grounding,
    "digits": digits,
}

TARGETS: dict[str, DrawnTarget] = {
    "classes": classes,
    "spatial": spatial,
    "banner": banner,
    "detection": detection,
    "counting": counting,
    "arithmetic": arithmetic,
}
"""The targets that draw their own questions; jigsaws are cut from any images."""

GRADERS: dict[str, Grader] = {
    "jigsaw": jigsaw.grade,
    "spatial": spatial.grade,
    "counting": counting.grade,
    "arithmetic": arithmetic.grade,
    **{name: module.grade for name, module in PRIOR.items()},
    **graders.GRADERS,
}

NAMED: dict[str, Callable[[str, str], str | None]] = {
    "jigsaw": jigsaw.named,
    "spatial": spatial.named,
    "counting": counting.named,
}
"""The one answer that a sentence names, by the kind of the right one; other graders read sentences themselves."""


def grade(grader: str, completion: str, answer: str, accepted: Sequence[str] = ()) -> Grade:
    """Grade a completion by the grader that its question names; the best grade that an accepted answer gives it."""
    if grader == "vqa" and accepted:
        return vqa.soft_score(completion, accepted)
    if len(accepted) < 2:
        return GRADERS[grader](completion, *(accepted or (answer,)))
    return max(
        (GRADERS[grader](completion, right) for right in accepted), key=lambda found: (found.correct, found.score)
    )


def grade_leniently(grader: str, completion: str, answer: str, accepted: Sequence[str] = ()) -> Grade:
    """The better of the grade and that of what the completion says in whatever form; no reward is paid by it.

    Reasoning is left out, then what follows the last "the answer is" counts first, and the whole where it has none.
    """
    strict = grade(grader, completion, answer, accepted)
    text = final_answer(completion)
    lenient = UNPARSED
    for part in (*stated(text, {}), text):
        said = NAMED[grader](part, answer) if grader in NAMED else unmarked(part)
        lenient = grade(grader, said, answer, accepted) if said else UNPARSED
        if lenient.parsed is not None:
            break
    return max(strict, lenient, key=lambda found: (found.score, found.parsed is not None))


def judge(question: Question, completion: str) -> Verdict:
    """What a completion is worth, strictly and leniently where its question tells the two apart.

    A question with `options` has the strict grade of its grader, and is right where the completion names the one of
    them; one whose form is its own in other ways, with `lenient`, is graded without reasoning and LaTeX's box.
    """
    if question.grader in PUBLIC:
        return public_questions.judge(question, completion)
    strict = grade(question.grader, completion, question.answer, question.accepted)
    if not question.details:
        return Verdict(*strict)
    options = tuple(json.loads(question.details).get("options", ()))
    text = final_answer(completion)
    if not options:
        lenient = grade(question.grader, text, question.answer, question.accepted)
        return Verdict(*max(strict, lenient, key=lambda found: found.score), strict.correct)
    named = the_named(text, options)
    return Verdict(named, named == question.answer, float(named == question.answer), strict.correct)


def _asker(benchmark: str, split: str) -> AskPrior:
    """The benchmark's `ask`; only that of handwriting depends on the split, which has to hold samples back."""
    if benchmark == "digits":
        return partial(digits.ask, split=split)
    return PRIOR[benchmark].ask


def draw(benchmark: str, seed: int, split: str) -> Iterator[tuple[int, PriorQuestion]]:
    """Endless (scene number, question) pairs of a split, the same for the same seed."""
    ask = _asker(benchmark, split)
    for index in count():
        question = ask(
            world_scene(seed, f"{split}/{benchmark}", index), generator("ask", seed, split, benchmark, index)
        )
        if question is not None:
            yield index, question


def prior_questions(
    benchmark: str, number: int, seed: int, split: str = "test", plain: bool = False
) -> Iterator[Question]:
    """The first `number` questions of a bundled benchmark, for the bundled base or in plain words."""
    for _, (index, question) in zip(range(number), draw(benchmark, seed, split), strict=False):
        found = Question(
            id=f"{benchmark}-{index:06d}",
            image_id=f"world/{split}/{benchmark}/{index:06d}",
            images=(png(question.image),),
            prompt=question.prompt,
            answer=question.answer,
            reference=question.reference,
            teacher="",
            grader=benchmark,
            benchmark=benchmark,
        )
        yield _in_plain_words(found, question) if plain else found


def _in_plain_words(question: Question, asked: PriorQuestion) -> Question:
    return question._replace(
        images=(png(plain_dialect.image(asked)),),
        prompt=plain_dialect.prompt(question.benchmark, asked),
        reference=question.answer,
        details=json.dumps({"options": plain_dialect.answers(question.benchmark)}),
    )


@cache
def chance(benchmark: str) -> float | None:
    """What the answers of other questions would score, over all pairs of 200; unknown for imported benchmarks."""
    if benchmark not in PRIOR:
        return None
    times = Counter(question.answer for _, (_, question) in zip(range(200), draw(benchmark, 0, "test"), strict=False))
    # Most answers are given many times: two that differ are graded once, and counted as often as they meet.
    meetings = {pair: times[pair[0]] * (times[pair[1]] - (pair[0] == pair[1])) for pair in product(times, repeat=2)}
    tagged = ((f"<answer> {given} </answer>", right, often) for (given, right), often in meetings.items())
    correct = sum(often * GRADERS[benchmark](given, right).correct for given, right, often in tagged)
    return correct / sum(meetings.values())


def target_chance(target: Target) -> float | None:
    """What guessing scores on the target; unknown for data that is not drawn here."""
    if isinstance(target, Jigsaw):
        return jigsaw.score_by_chance(target)
    drawn = target.path is None if isinstance(target, Banner) else target.public is None
    return TARGETS[target.benchmark].chance(target) if drawn else None
