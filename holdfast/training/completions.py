"""A bounded table of what a policy wrote while it trained, with the parts of its reward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.training.rewards import Chats, Reward, texts

GROUPS = 2
"""Prompts whose completions are kept at a logged step."""


class CompletionLog:
    """Collects the first groups of every logged step into completions.parquet."""

    def __init__(self, path: Path, group: int) -> None:
        self.path = path
        self.kept = GROUPS * group
        self.rows: list[dict[str, Any]] = []

    def watched(self, name: str, reward: Reward) -> Reward:
        """The reward, noting what it gives; TRL names the metrics after the function."""

        def watching(completions: Chats, **columns: Any) -> list[float]:
            values = reward(completions=completions, **columns)
            state = columns["trainer_state"]
            if state.global_step % state.logging_steps == 0:
                self._note(state.global_step, completions, columns, (name, values))
            return values

        watching.__name__ = name
        return watching

    def _note(self, step: int, completions: Chats, columns: dict[str, Any], part: tuple[str, list[float]]) -> None:
        """One part of the reward; the first part that comes opens the step's rows."""
        if not self.rows or self.rows[-1]["step"] != step:
            given = zip(columns["id"], columns["prompts"], texts(completions), strict=True)
            opened = [
                {"step": step, "id": id_, "prompt": _text(prompt), "completion": text} for id_, prompt, text in given
            ]
            self.rows.extend(opened[: self.kept])
        name, values = part
        current = [row for row in self.rows[-self.kept :] if row["step"] == step]
        for row, value in zip(current, values, strict=False):
            row[name] = value

    def save(self, directory: Path) -> None:
        """Leave in a checkpoint what was written so far."""
        if self.rows:
            pq.write_table(pa.Table.from_pylist(self.rows), directory / self.path.name)

    def load(self, directory: Path) -> None:
        """Go on from a checkpoint."""
        saved = directory / self.path.name
        self.rows = pq.read_table(saved).to_pylist() if saved.is_file() else []

    def write(self) -> None:
        """Write the table, complete or not at all."""
        if self.rows:
            partial = self.path.with_suffix(".partial")
            pq.write_table(pa.Table.from_pylist(self.rows), partial)
            partial.replace(self.path)


def _text(prompt: list[dict[str, Any]]) -> str:
    """Of turns in parts, or of plain text."""
    contents = [message["content"] for message in prompt]
    parts = [[{"type": "text", "text": one}] if isinstance(one, str) else one for one in contents]
    return "".join(part["text"] for content in parts for part in content if part["type"] == "text")
