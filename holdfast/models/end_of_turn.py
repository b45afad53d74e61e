"""The token that ends what an assistant says: where generation stops, so the last one that training supervises.

A chat template writes it after the text, and often a line break after that, which no model is ever asked to write.
Tokenizers and templates may disagree: the template's `<end_of_turn>` need not be the tokenizer's EOS.
"""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig

from holdfast.data.chat import text_turn

TEXT = "holdfast"
"""Stands for what the assistant says."""


def end_turns(processor: Any, stops: list[int]) -> None:
    """Make the tokenizer's EOS the first token after the assistant's text at which generation stops.

    It stays what it was where the chat template writes none of the `stops`.
    """
    tokenizer = processor.tokenizer
    found = next((token for token in _after_text(processor) if token in {*stops, tokenizer.eos_token_id}), None)
    if found is not None and found != tokenizer.eos_token_id:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(found)


def stop_ids(settings: GenerationConfig) -> list[int]:
    """Tokens at which generation stops: one, several or none."""
    ends = settings.eos_token_id
    if ends is None:
        return []
    return [ends] if isinstance(ends, int) else list(ends)


def _after_text(processor: Any) -> list[int]:
    """Tokens that the chat template writes after the assistant's text."""
    said = [text_turn(processor, "user", "?"), text_turn(processor, "assistant", TEXT)]
    try:
        written = processor.apply_chat_template(said, tokenize=False)
    except Exception:  # whatever a user's template does; the check tells what it cannot write
        return []
    _, text, after = written.rpartition(TEXT)
    return processor.tokenizer(after, add_special_tokens=False)["input_ids"] if text else []
