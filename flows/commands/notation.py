"""How an experiment file is read: YAML with the scalars of its version 1.2, as people mean them.

Only true, false, null and decimal numbers are more than text: 2026-02-30, 12:30, yes and off stay what is written.
Numbers in other notations are refused, since 010 is 8 to some readers and 10 to others.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

LONGEST = 2**18
"""Characters of a text; those that people write have some thousands."""
MOST = 50_000
"""Values of a text."""
NULL = re.compile(r"~|null|Null|NULL|")
BOOLEAN = re.compile(r"true|True|TRUE|false|False|FALSE")
WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]*|[1-9][0-9]{0,2}(?:_[0-9]{3})+)")
FRACTION = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
OTHER = re.compile(r"[-+]?(?:0[0-9_]+|0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+)")
_TAG = "tag:yaml.org,2002:"
_NOTATION = "!notation"


class Unreadable(ValueError):
    """What is wrong, with the line of a text of several."""


def read(text: str) -> Any:
    """What a YAML text says. Unreadable if it is no YAML, no value that a config can have, or larger than any is."""
    if len(text) > LONGEST:
        raise Unreadable(f"it has more than {LONGEST:,} characters")
    try:
        return _value(_Loader(text))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise Unreadable(f"line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise Unreadable(str(error).splitlines()[0]) from None
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None


def _value(loader: _Loader) -> Any:
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MOST:
            problem = f"it has more than {MOST:,} values, an alias's counted wherever it stands"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Values in a node, those of an alias counted wherever it stands: whoever walks through them meets so many."""
    if id(node) in known:
        if not known[id(node)]:
            raise yaml.MarkedYAMLError(problem="an alias stands inside what it names", problem_mark=node.start_mark)
        return known[id(node)]
    known[id(node)] = 0
    inside: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        inside = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        inside = node.value
    known[id(node)] = 1 + sum(_size(part, known) for part in inside)
    return known[id(node)]


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else "<<"
            if name != "<<" and name in names:
                raise yaml.MarkedYAMLError(problem=f"the key {name!r} stands twice", problem_mark=node.start_mark)
            names.add(name)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            # A tag such as !!timestamp on text that is none.
            problem = f"{node.value!r:.60} is no {node.tag.rpartition(':')[2]}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from error


def _fraction(loader: _Loader, node: yaml.ScalarNode) -> float:
    value = loader.construct_yaml_float(node)
    if not math.isfinite(value):
        problem = f"{node.value} is no finite number; write one, or put text in quotes"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    return float(value)


def _refused(_loader: _Loader, node: yaml.ScalarNode) -> None:
    plain = node.value.replace("_", "").lstrip("+-0") or "0"
    decimal = plain if plain.isdigit() else "it in decimal"
    problem = f"{node.value} is no decimal number, as its first 0 can mean octal; write {decimal}, or text in quotes"
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _whole(_loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value)


for _name, _pattern, _first in (
    (_TAG + "null", NULL, ["~", "n", "N", ""]),
    (_TAG + "bool", BOOLEAN, list("tTfF")),
    (_TAG + "int", WHOLE, list("-+0123456789")),
    (_TAG + "float", FRACTION, list("-+.0123456789")),
    (_NOTATION, OTHER, list("-+0")),
    (_TAG + "merge", re.compile("<<"), ["<"]),
):
    _Loader.add_implicit_resolver(_name, re.compile(rf"(?:{_pattern.pattern})\Z"), _first)
_Loader.add_constructor(_TAG + "int", _whole)
_Loader.add_constructor(_TAG + "float", _fraction)
_Loader.add_constructor(_NOTATION, _refused)
