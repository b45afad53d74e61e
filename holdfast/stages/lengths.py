"""How long a study's prompts and completions are, images included, and whether its limits and its model hold them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

from PIL import Image

from holdfast.config.methods import SFT, AnyStage, Source, TeacherFile
from holdfast.config.study import Study
from holdfast.data.chat import begun, goes_on, rendered
from holdfast.data.shards import Question, target_shard
from holdfast.errors import UserError, reason
from holdfast.evaluation.teaching import graded


def learned_shard(stage: AnyStage, study: Study) -> str:
    """The file of the questions that a stage learns from."""
    return target_shard("train", study.learned_by(stage) if study.targets else "")


def trained_stages(study: Study) -> Iterator[tuple[str, AnyStage]]:
    """Every stage, and what an error calls it."""
    for arm, stages in study.trained.items():
        for number, stage in enumerate(stages):
            yield f"arms.{arm}.{number}", stage


class Longest(NamedTuple):
    """The longest of some prompts, in tokens."""

    tokens: int
    id: str


def check_lengths(
    study: Study, processor: Any, config: Any, shards: dict[str, list[Question]], told: list[str]
) -> tuple[dict[str, int], dict[str, tuple[Longest, Longest]], Question]:
    """The longest of all, of every stage the longest prompt and the longest completion that it trains on, and the
    question with the longest prompt.

    `told` gets warnings on teachers' files.
    """
    room = getattr(config.get_text_config(), "max_position_embeddings", None)
    found = {name: longest_prompt(processor, questions) for name, questions in shards.items() if questions}
    needed = {name: _longest_answer(processor, name, questions) for name, questions in shards.items() if questions}
    limit = study.evaluation.max_new_tokens
    for name, answer in needed.items():
        _refuse_short("evaluation.max_new_tokens", limit, answer, name)
        if room is not None and found[name].tokens + limit > room:
            raise UserError(
                f"model.path: the prompt of {name}'s question {found[name].id} takes {found[name].tokens} tokens, and "
                f"with evaluation.max_new_tokens {limit} more than the model's {room}; lower images.size or that limit"
            )
    trained: dict[str, tuple[Longest, Longest]] = {}
    for where, stage in trained_stages(study):
        shard = learned_shard(stage, study)
        answer = needed[shard]
        if isinstance(stage, SFT) and stage.source.kind in ("teacher", "file"):
            answer = _longest_teaching(processor, shards[shard], where, stage.source, told)
            _refuse_short("evaluation.max_new_tokens", limit, answer, f"{shard} in the style that {where} teaches")
        if isinstance(stage, SFT) and stage.source.kind in ("self", "rollouts", "own"):
            # A sample may be as long as the limit, and the right answer follows the base's own reasoning.
            answer = Longest(limit + answer.tokens, answer.id)
        _check_stage_lengths(where, stage, found[shard], answer, shard)
        drawn = 0 if isinstance(stage, SFT) else stage.trainer.get("max_completion_length") or limit
        trained[where] = found[shard], answer._replace(tokens=max(answer.tokens, drawn))
    widest = max(found, key=lambda name: found[name])
    longest = {"longest_prompt": found[widest].tokens, "longest_answer": max(needed.values()).tokens}
    return longest, trained, named_by(found[widest], shards[widest])


def named_by(longest: Longest, questions: list[Question]) -> Question:
    """The question that it is the length of."""
    return next(one for one in questions if one.id == longest.id)


def _longest_teaching(
    processor: Any, questions: list[Question], where: str, source: Source, told: list[str]
) -> Longest:
    """Of the questions' own teacher, or of a teacher's file, all of whose rows are graded before anything trains."""
    if isinstance(source, TeacherFile):
        kept, notes = graded(source, source.path, questions)
        told += [line for line in notes["told"] if line not in told]
        return max(Longest(_tokens(processor, row.taught.completion), row.taught.question.id) for row in kept)
    silent = next((question.id for question in questions if not question.teacher), None)
    if silent is not None:
        raise UserError(
            f"{where}.source: question {silent} has no teacher's reasoning; fill in the column `reasoning` of "
            f"target.path in every row, or use another source"
        )
    if not goes_on(questions[0], questions[0].teacher):
        raise UserError(
            f"{where}.source: the teacher begins with <think>, and target.prefill with another tag; set "
            "target.thinking: true, or use another source"
        )
    return max(Longest(_tokens(processor, question.teacher), question.id) for question in questions)


def _check_stage_lengths(where: str, stage: AnyStage, prompt: Longest, completion: Longest, shard: str) -> None:
    if not isinstance(stage, SFT):
        limit = stage.trainer.get("max_completion_length")
        if limit is not None:
            _refuse_short(f"{where}.trainer.max_completion_length", limit, completion, shard)
        return
    limit = stage.trainer.get("max_length")
    if limit is None:
        return
    if prompt.tokens + completion.tokens > limit:
        raise UserError(
            f"{where}.trainer.max_length: {limit} tokens cut off training prompts of up to {prompt.tokens} tokens, "
            f"images included, with completions of up to {completion.tokens}; raise it to "
            f"{prompt.tokens + completion.tokens} or leave it out"
        )


def _refuse_short(field: str, limit: int, answer: Longest, shard: str) -> None:
    if answer.tokens > limit:
        raise UserError(
            f"{field}: {limit} tokens cannot hold the right answer to question {answer.id} of {shard}, "
            f"which takes {answer.tokens}; raise it"
        )


def _longest_answer(processor: Any, shard: str, questions: list[Question]) -> Longest:
    """The longest reference; before that of a target that asks for reasoning, at least its empty tags."""
    thinking = shard.startswith("target") and "<think>" in questions[0].prompt and not begun(questions[0])
    opening = "<think> </think> " if thinking else ""
    return max(Longest(_tokens(processor, opening + question.reference), question.id) for question in questions)


def _tokens(processor: Any, completion: str) -> int:
    """With the end token."""
    return len(processor.tokenizer(completion, add_special_tokens=False)["input_ids"]) + 1


def longest_prompt(processor: Any, questions: list[Question]) -> Longest:
    """The longest of some questions' prompts, images included."""
    return max(prompt_lengths(processor, questions))


def prompt_lengths(processor: Any, questions: list[Question]) -> list[Longest]:
    """Text is counted for every question, images once for every combination of sizes; no image is decoded for that."""
    extra: dict[tuple[tuple[int, int], ...], int] = {}
    texts = [rendered(processor, question) for question in questions]
    counts = map(len, processor.tokenizer(texts, add_special_tokens=False)["input_ids"])
    found = []
    for question, text, count in zip(questions, texts, counts, strict=True):
        sizes = tuple(Image.open(io.BytesIO(image)).size for image in question.images)
        if sizes not in extra:
            try:
                extra[sizes] = _prompt_tokens(processor, text, sizes) - count
            except Exception as error:  # every architecture has rules of its own for images
                shown = ", ".join(f"{width}×{height}" for width, height in sizes) or "no"
                raise UserError(
                    f"question {question.id} of {question.benchmark}: the model's processor refuses images of {shown} "
                    f"pixels ({reason(error)}); crop them or leave the question out"
                ) from error
        found.append(Longest(count + extra[sizes], question.id))
    return found


def _prompt_tokens(processor: Any, text: str, sizes: tuple[tuple[int, int], ...]) -> int:
    blanks = [Image.new("RGB", size) for size in sizes]
    features = processor(text=[text], images=[blanks] if blanks else None, add_special_tokens=False)
    return len(features["input_ids"][0])
