"""How a question becomes a chat: one function, so that every arm and every evaluation sees the same prompt."""

from __future__ import annotations

import io
import re
from typing import Any

from PIL import Image

from holdfast.data.shards import Question

TAG = re.compile(r"<(?:think|answer)>")
PREFILL = "{{ messages[-1].prefill if add_generation_prompt and messages[-1].prefill else '' }}"
"""At the end of a chat template: what the answer begins with, where the last turn says so."""


def reads_images(processor: Any) -> bool:
    """Whether it is a vision-language model's, whose chat template takes turns in parts and not as plain text."""
    return hasattr(processor, "image_processor")


def rendered(processor: Any, question: Question) -> str:
    """The prompt as the model reads it: in its chat template, up to where its answer goes on."""
    text = processor.apply_chat_template(messages(processor, question), tokenize=False, add_generation_prompt=True)
    return text + question.prefill


def messages(processor: Any, question: Question) -> list[dict[str, Any]]:
    """The question as the user's turn, after the system's where there is one."""
    if reads_images(processor):
        asked = turn(len(question.images), question.prompt)
    else:
        asked = [text_turn(processor, "user", question.prompt)]
    if question.prefill:
        asked = [{**asked[0], "prefill": question.prefill}]
    return [text_turn(processor, "system", question.system), *asked] if question.system else asked


def prefilling(template: str) -> str:
    """A chat template that writes what `messages` says of a prefill, as `rendered` does."""
    # Jinja leaves out a last line break.
    return template.removesuffix("\n") + PREFILL


def begun(question: Question) -> str:
    """What the prefill begins of the answer: all from its first tag on. What stands before it is the prompt's alone."""
    tag = TAG.search(question.prefill)
    return question.prefill[tag.start() :] if tag else ""


def whole(question: Question, written: str) -> str:
    """What a model wrote after the prefill, with what that began: a completion as it is kept, graded and shown."""
    return begun(question) + written


def rest(question: Question, completion: str) -> str:
    """Of a completion what a model writes after the prefill: what it learns, and what its probability is of.

    Of any that `whole` made, what was written. Of another, what follows the tag that both begin with; else all of it.
    """
    opened = begun(question)
    if completion.startswith(opened):
        return completion[len(opened) :]
    if not goes_on(question, completion):
        return completion
    after = completion[opened.index(">") + 1 :]
    return after.lstrip() if opened[-1].isspace() else after


def goes_on(question: Question, completion: str) -> bool:
    """Whether a completion begins with the tag that the prefill opens, if it opens one."""
    tag = TAG.match(begun(question))
    return tag is None or completion.startswith(tag[0])


def text_turn(processor: Any, role: str, text: str) -> dict[str, Any]:
    """A turn of text alone."""
    return {"role": role, "content": [{"type": "text", "text": text}] if reads_images(processor) else text}


def turn(images: int, prompt: str) -> list[dict[str, Any]]:
    """One user turn: all images, then the text."""
    content: list[dict[str, Any]] = [{"type": "image"} for _ in range(images)]
    return [{"role": "user", "content": [*content, {"type": "text", "text": prompt}]}]


def pictures(question: Question) -> list[Image.Image]:
    """The question's images, decoded."""
    return [Image.open(io.BytesIO(image)).convert("RGB") for image in question.images]
