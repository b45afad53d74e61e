"""`vary` in an experiment file: the same study in many settings, one for every combination of its factors' levels."""

from __future__ import annotations

import re
from itertools import product
from typing import Any, NamedTuple

from holdfast.errors import UserError

Content = dict[str, Any]
Levels = dict[str, Content]
"""By level, the fields that it sets."""
EVERY = "*"
NAME = re.compile(r"[A-Za-z0-9_.-]+")


class Varied(NamedTuple):
    """What a file with `vary` describes, not yet validated."""

    factors: dict[str, Levels]
    members: list[tuple[dict[str, str], Content]]
    """The levels of each member, and its content as an experiment file without `vary` would have it."""


def varied(content: Content, file: str) -> Varied:
    """Every combination of levels. UserError where `vary` says something else than factors and levels."""
    given = content["vary"]
    if not isinstance(given, dict) or not given:
        raise UserError(f"{file}: vary: is a mapping of factors, for example `seed: [0, 1, 2]`.")
    named = [_factor(str(name), levels, file) for name, levels in given.items()]
    _refuse_twice([name for name, _ in named], file, "factors")
    factors = dict(named)
    common = {name: value for name, value in content.items() if name != "vary"}
    members = []
    for chosen in product(*factors.values()):
        member = common
        for levels, level in zip(factors.values(), chosen, strict=True):
            member = merged(member, levels[level])
        if "name" in common:
            member = {**member, "name": _member_name(common["name"], chosen), "sweep": common["name"]}
        members.append((dict(zip(factors, chosen, strict=True)), member))
    _refuse_twice([member.get("name") for _, member in members], file, "studies")
    return Varied(factors, members)


def _refuse_twice(names: list[Any], file: str, things: str) -> None:
    for name in names:
        if name is not None and names.count(name) > 1:
            raise UserError(f"{file}: vary: two {things} are named {name!r}; name their levels by a mapping.")


def _member_name(name: Any, chosen: tuple[str, ...]) -> str:
    return "-".join([str(name), *chosen]).replace(".", "_")


def _factor(name: str, given: Any, file: str) -> tuple[str, Levels]:
    """Either a field with a list of its values, or levels by name with the fields that each sets."""
    at = f"{file}: vary.{name}"
    if isinstance(given, list) and given:
        levels = {str(value): _at(name.split("."), value) for value in given}
        name = name.rpartition(".")[-1]
    elif isinstance(given, dict) and given:
        if any(isinstance(level, bool) for level in given):
            raise UserError(f"{at}: true and false are no names; put such a level in quotes.")
        levels = {str(level): fields or {} for level, fields in given.items()}
    else:
        raise UserError(f"{at}: is a list of a field's values, or a mapping from levels to the fields that they set.")
    for level, fields in levels.items():
        if not NAME.fullmatch(level):
            raise UserError(f"{at}: {level!r} is no name for a level; give it letters, digits, `_`, `.` or `-`.")
        if not isinstance(fields, dict):
            raise UserError(
                f"{at}.{level}: is a mapping of fields, not {fields!r}; values go to `{name}.{level}: […]`."
            )
    return name, levels


def _at(path: list[str], value: Any) -> Content:
    for name in reversed(path):
        value = {name: value}
    return value


def merged(content: Any, fields: Any) -> Any:
    """Mappings are merged, anything else is replaced.

    `"*"` stands for all entries of a mapping or a list, and a number for an entry of a list.
    """
    if not isinstance(fields, dict):
        return fields
    if isinstance(content, list) and all(_entry(name, content) for name in fields):
        numbered = {name if name == EVERY else int(name): value for name, value in fields.items()}
        return list(merged(dict(enumerate(content)), numbered).values())
    if not isinstance(content, dict):
        return fields
    if EVERY in fields:
        content = {name: merged(value, fields[EVERY]) for name, value in content.items()}
    return {**content, **{name: merged(content.get(name), fields[name]) for name in fields if name != EVERY}}


def _entry(name: Any, content: list[Any]) -> bool:
    return name == EVERY or (str(name).isdecimal() and int(name) < len(content))
