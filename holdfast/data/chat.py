"""How a question becomes a chat: one function, so that every arm and every evaluation sees the same prompt."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from holdfast.data.shards import Question


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
    return [text_turn(processor, "system", question.system), *asked] if question.system else asked


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
