"""A tokenizer in the place of a processor, for models that read text alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.errors import UserError


class TextProcessor:
    """Encodes prompts of text, as a processor does prompts with images."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.chat_template = tokenizer.chat_template

    def apply_chat_template(self, turns: list[dict[str, Any]], **how: Any) -> Any:
        """Turns whose content is plain text, as the tokenizer writes them."""
        return self.tokenizer.apply_chat_template(turns, **how)

    def __call__(self, text: list[str], images: None = None, **how: Any) -> Any:
        """The texts' tokens, as a processor gives them; there are no images."""
        return self.tokenizer(text, return_token_type_ids=False, **how)

    def save_pretrained(self, place: Path) -> None:
        """Write the tokenizer's files."""
        self.tokenizer.save_pretrained(place)


def refusal(field: str, kind: str) -> UserError:
    """Of a benchmark that shows images to a text model of this type."""
    return UserError(
        f"{field} shows images, and model.path is a {kind} model, which reads text alone; ask in text, as "
        "arithmetic and gsm8k do, or name a vision-language model such as Qwen/Qwen2.5-VL-3B-Instruct"
    )
