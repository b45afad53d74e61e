"""A user's own reward function: found by import path, tried before training, held to what TRL wants."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.config.jobs import Check
from holdfast.config.refs import DataRef
from holdfast.config.study import Study
from holdfast.errors import UserError
from holdfast.stages.preflight import check
from holdfast.training.reward_functions import call, loaded, source_digest

MODULE = """
def polite(completions, answer, question, thinking, trainer_state, **others):
    return [float("please" in messages[0]["content"]) for messages in completions]

async def slow(completions, **others):
    return [None, 2] * (len(completions) // 2)

def narrow(completions): return []
def broken(completions, **others): raise KeyError("nothing")
def short(completions, **others): return [1.0]
def words(completions, **others): return ["one"] * len(completions)
def endless(completions, **others): return [float("inf")] * len(completions)
def number(completions, **others): return 1.0
number_of_words = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of its own name in the directory where the command is run."""
    name = f"module_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


def checked(data: DataRef, function: str) -> Any:
    terms = {"score": 1.0, "mine": {"function": function, "weight": 0.1}}
    study = Study(name="s", arms={"a": [{"method": "grpo", "rewards": terms, "trainer": {"max_steps": 2}}]})
    return check(Check(study=study, data=data))


def test_a_function_beside_the_command_is_let_through_plain_or_async(tiny_data: DataRef, here: str) -> None:
    checked(tiny_data, f"{here}:polite")
    checked(tiny_data, f"{here}:slow")
    values = call("slow", loaded("slow", f"{here}:slow"), [[], []], {})
    assert math.isnan(values[0])
    assert values[1] == 2.0


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("missing", "has no such function"),
        ("number_of_words", "is no function but int"),
        ("narrow", "takes no **kwargs"),
        ("broken", "failed (KeyError: 'nothing')"),
        ("short", "returned 1 numbers for 4 completions"),
        ("words", "returned 'one' for a completion"),
        ("endless", "returned inf for a completion"),
        ("number", "failed (TypeError"),
    ],
)
def test_a_function_that_cannot_work_is_refused_by_field(
    tiny_data: DataRef, here: str, function: str, words: str
) -> None:
    with pytest.raises(UserError) as refused:
        checked(tiny_data, f"{here}:{function}")
    assert words in str(refused.value)
    assert str(refused.value).startswith(f"arms.a.0.rewards.mine.function: {here}:{function}")


def test_a_module_that_is_not_there_is_refused(tiny_data: DataRef) -> None:
    with pytest.raises(UserError, match=r"rewards\.mine\.function: no_such_module:f cannot be imported"):
        checked(tiny_data, "no_such_module:f")


def test_a_changed_module_has_another_digest(here: str, tmp_path: Path) -> None:
    before = source_digest(f"{here}:polite")
    assert before == source_digest(f"{here}:slow") != ""
    (tmp_path / f"{here}.py").write_text(MODULE + "\n")
    assert source_digest(f"{here}:polite") != before
    assert source_digest("no_such_module:f") == ""


def test_a_digest_follows_what_a_module_imports_from_the_users_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    files = {
        "first.py": "import json, numpy\nfrom shelf.words import polite\n",
        "shelf/__init__.py": "",
        "shelf/words.py": "def f():\n    from . import counts\n    from .deep.lists import words\n",
        "shelf/counts.py": "import first\n",
        "shelf/deep/lists.py": "words = []\n",
        "unused.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    unchanged = source_digest("first:f")
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}more = 1\n")
        assert (source_digest("first:f") == unchanged) == (name == "unused.py"), name
        (tmp_path / name).write_text(text)
    assert source_digest("first:f") == unchanged
    assert not {"first", "shelf"} & sys.modules.keys()
