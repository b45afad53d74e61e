"""How a question becomes a chat: one function, so that every arm and every evaluation sees the same prompt."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from holdfast.data.shards import Question


def messages(question: Question) -> list[dict[str, Any]]:
    """The question as the user's turn."""
    return turn(len(question.images), question.prompt)


def turn(images: int, prompt: str) -> list[dict[str, Any]]:
    """One user turn: all images, then the text."""
    content: list[dict[str, Any]] = [{"type": "image"} for _ in range(images)]
    return [{"role": "user", "content": [*content, {"type": "text", "text": prompt}]}]


def pictures(question: Question) -> list[Image.Image]:
    """The question's images, decoded."""
    return [Image.open(io.BytesIO(image)).convert("RGB") for image in question.images]
