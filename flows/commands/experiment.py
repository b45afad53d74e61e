"""From a sparse YAML file and `--set` overrides to a validated study or sweep, or to one sentence on what to mend.

Relative paths in a file mean the directory in which the command is run.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from flows.commands import notation
from flows.commands.vary import varied
from holdfast.benchmarks.dataset import check
from holdfast.config.base import Config
from holdfast.config.jobs import MakeData
from holdfast.config.measurement import Influence
from holdfast.config.study import Study
from holdfast.config.sweep import Member, Sweep
from holdfast.errors import UserError, brief
from tasks.redaction import refuse_secrets

NAME = r"[A-Za-z0-9_-]+"
if TYPE_CHECKING:
    from flows.timetable import Timetable

Location = tuple[int | str, ...]


class _Settings(Config):
    influence: Influence


def load_experiment(file: Path, overrides: Sequence[str] = ()) -> Study | Sweep:
    """What a YAML file describes, with overrides such as `target.grid=[3,3]` applied. UserError on anything wrong."""
    content = _content(file, overrides)
    _timetable(file, content.pop("schedule", None))
    if "vary" not in content:
        return _study(file, content)
    name = content.get("name", "")
    given = varied(content, str(file))
    factors = {factor: tuple(levels) for factor, levels in given.factors.items()}
    members = [Member(levels=levels, study=_study(file, member)) for levels, member in given.members]
    return Sweep(name=name, factors=factors, members=tuple(members))


def load_timetable(file: Path, overrides: Sequence[str] = (), cron: str | None = None) -> Timetable | None:
    """When the experiment of a file runs by itself: its field `schedule`, which is no part of the study, or `cron`."""
    if cron is not None:
        return _timetable(Path("--cron"), {"cron": cron})
    return _timetable(file, _content(file, overrides).get("schedule"))


def _content(file: Path, overrides: Sequence[str]) -> dict[str, Any]:
    content = _read(file)
    for override in overrides:
        content = _overridden(content, override)
    refuse_secrets(content)
    return content


def _timetable(file: Path, content: Any) -> Timetable | None:
    if content is None:
        return None
    from flows.timetable import Scheduled

    try:
        return Scheduled.model_validate({"schedule": content}).schedule
    except ValidationError as error:
        raise UserError(_sentence(file, {"schedule": content}, error)) from None


def studies_of(experiment: Study | Sweep) -> list[Study]:
    """The one study, or all of a sweep."""
    return [member.study for member in experiment.members] if isinstance(experiment, Sweep) else [experiment]


def load_study(file: Path, overrides: Sequence[str] = ()) -> Study:
    """The one study of a YAML file. UserError on anything wrong, and if it describes a sweep."""
    experiment = load_experiment(file, overrides)
    if isinstance(experiment, Sweep):
        raise UserError(f"{file}: vary: describes {len(experiment.members)} studies where one is needed; remove it.")
    return experiment


def _study(file: Path, content: dict[str, Any]) -> Study:
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        raise UserError(_sentence(file, content, error)) from None
    if study.sweep and not re.fullmatch(NAME, study.sweep):
        raise UserError(f"{_named(file)}: sweep: {brief(study.sweep)} is no name; `vary` sets it, so remove it.")
    check(MakeData(images=study.images, target=study.target, targets=study.targets, prior=study.prior))
    return study


def influence_settings(overrides: Sequence[str]) -> Influence:
    """An influence analysis with overrides such as `samples=200` of its defaults. UserError on anything wrong."""
    content: dict[str, Any] = {"influence": {}}
    for override in overrides:
        content = _overridden(content, f"influence.{override}")
    try:
        return _Settings.model_validate(content).influence
    except ValidationError as error:
        raise UserError(_sentence(Path("--set"), content, error)) from None


def _read(file: Path) -> dict[str, Any]:
    if not _is_text(str(file)):
        raise UserError(f"{brief(file)}: this name is no UTF-8; rename the file.")
    if not file.is_file():
        others = sorted(path.as_posix() for path in Path("experiments").glob("*.yaml"))
        there = f"; there are {', '.join(others)}" if others else ""
        raise UserError(f"{file}: no such file{there}.")
    try:
        with file.open(encoding="utf-8") as opened:
            content = notation.read(opened.read(notation.LONGEST + 1))
    except UnicodeDecodeError:
        raise UserError(f"{_named(file)}: is no UTF-8; save the file in that encoding.") from None
    except notation.Unreadable as error:
        raise UserError(f"{_named(file)}: not readable as YAML ({error}); correct that line.") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: an experiment is a mapping of fields such as `name:` and `arms:`.")
    return content


def _is_text(name: str) -> bool:
    """Whether a name can be written down."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _named(file: Path) -> str:
    """A file for a message."""
    return brief(file, 120)


def _overridden(content: dict[str, Any], override: str) -> dict[str, Any]:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise UserError(f"--set {override}: write FIELD=VALUE, for example --set target.grid=[3,3].")
    try:
        value = notation.read(text)
    except notation.Unreadable as error:
        why = str(error).removeprefix("line 1: ")
        raise UserError(
            f"--set {brief(override)}: {brief(text)!r} is not readable as YAML ({why}); quote it."
        ) from None
    replaced = _replaced(content, path.split("."), value, override)
    assert isinstance(replaced, dict)
    return replaced


def _replaced(node: Any, path: list[str], value: Any, override: str) -> Any:
    """A copy of `node` with the value at `path`; copies, because YAML aliases share their mapping."""
    if not path:
        return value
    name, rest = path[0], path[1:]
    if isinstance(node, dict):
        return {**node, name: _replaced(node.get(name, {}), rest, value, override)}
    if isinstance(node, list):
        if not name.isdigit() or int(name) >= len(node):
            raise UserError(f"--set {override}: {name!r} is no place in a list of {len(node)}; the first is 0.")
        place = int(name)
        return [*node[:place], _replaced(node[place], rest, value, override), *node[place + 1 :]]
    raise UserError(f"--set {override}: the file has {node!r} where {name!r} should be found; set that whole value.")


def _sentence(file: Path, content: dict[str, Any], error: ValidationError) -> str:
    errors = error.errors(include_url=False)
    first = errors[0]
    field = _field(content, first["loc"])
    more = f" ({len(errors) - 1} more to mend after this)" if len(errors) > 1 else ""
    return f"{_named(file)}: {f'{brief(field)}: ' if field else ''}{_problem(dict(first))}{more}."


def _field(content: Any, location: Location) -> str:
    """The path as it stands in the file: pydantic's has the chosen kinds of a union in between."""
    parts: list[str] = []
    node = content
    for position, part in enumerate(location):
        if part in _places(node):
            node = node[part]
        elif position < len(location) - 1 or part == "[key]":
            continue
        parts.append(str(part))
    return ".".join(parts)


def _places(node: Any) -> Collection[int | str]:
    if isinstance(node, dict):
        return node.keys()
    return range(len(node)) if isinstance(node, list) else ()


def _problem(error: dict[str, Any]) -> str:
    location: Location = error["loc"]
    if error["type"] == "extra_forbidden":
        return f"unknown field ({_suggestion(str(location[-1]), _known_fields(location[:-1]))})"
    if error["type"] == "missing":
        return "this field is required; add it"
    if error["type"] == "union_tag_invalid":
        context = error["ctx"]
        kinds = re.findall(r"'([^']*)'", context["expected_tags"])
        name = context["discriminator"].strip("'")
        return f"unknown {name} {context['tag']!r} ({_suggestion(context['tag'], kinds)})"
    if error["type"] == "union_tag_not_found":
        return f"say which kind it is with `{error['ctx']['discriminator'].strip(chr(39))}: …`"
    message = (
        error["msg"].removeprefix("Value error, ").rstrip(".").replace("tuple", "list").replace("Dictionary", "mapping")
    )
    if error["type"] == "string_type" and isinstance(error["input"], bool | int | float):
        return f"is text, which YAML reads as {error['input']}; put it in quotes"
    return message if error["type"] == "value_error" else f"{message}, not {brief(repr(error['input']))}"


def _suggestion(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"


def _known_fields(location: Location) -> list[str]:
    """The fields that a mapping at this place may have, read off the schema of the study."""
    if location[:1] == ("schedule",):
        from flows.timetable import Timetable

        return list(Timetable.model_fields)
    schema = Study.model_json_schema()
    node: dict[str, Any] = schema
    for part in location:
        if isinstance(part, int):
            node = node["items"]
        elif part in node.get("properties", {}):
            node = node["properties"][part]
        elif "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"][part]}
        elif "patternProperties" in node:
            node = next(iter(node["patternProperties"].values()))
        if "anyOf" in node:
            node = next(kind for kind in node["anyOf"] if "$ref" in kind)
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return list(node.get("properties", {}))
