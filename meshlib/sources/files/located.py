"""Mappings and lists that remember the line each item stands on, and the field paths that lead to them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

FieldPath = tuple[str | int, ...]


class LocatedDict(dict[str, Any]):
    """A mapping with the line it begins on (`line`, from 1) and the line of each key (`lines`)."""

    __slots__ = ("line", "lines", "size")

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}
        self.size = 1


class LocatedList(list[Any]):
    """A list with the line it begins on (`line`, from 1) and the line of each item (`lines`)."""

    __slots__ = ("line", "lines", "size")

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: list[int] = []
        self.size = 1


def line_of(root: object, path: Iterable[str | int]) -> int:
    """The line of the deepest part of `path` that is there; steps that are not (a missing field, the content of a
    packed message) are passed over, because a path speaks of the resource and the document may write it differently.
    """
    line = root.line if isinstance(root, LocatedDict | LocatedList) else 0
    node = root
    for step in path:
        if isinstance(node, LocatedDict):
            key = _find_key(node, str(step))
            if key is not None:
                line, node = node.lines.get(key, line), node[key]
        elif isinstance(node, LocatedList) and isinstance(step, int) and step < len(node):
            line, node = node.lines[step], node[step]
    return line


def format_path(path: Iterable[str | int]) -> str:
    """`("a", "b", 0, "x.y")` as `a.b[0]["x.y"]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN.fullmatch(step):
            text += f".{step}" if text else step
        else:
            text += f'["{step}"]'
    return text


def parse_path(text: str) -> FieldPath:
    """The inverse of `format_path`; anything between brackets that is no number is a key, quoted or not."""
    steps: list[str | int] = []
    for plain, inner in _STEP.findall(text):
        if plain:
            steps.append(plain)
        else:
            steps.append(int(inner) if inner.isdigit() else inner.strip("'\""))
    return tuple(steps)


def json_name(field: str) -> str:
    """A field name without the difference between `snake_case` and `camelCase`."""
    return field.replace("_", "").lower()


def _find_key(node: LocatedDict, step: str) -> str | None:
    if step in node:
        return step
    wanted = json_name(step)
    return next((key for key in node if json_name(key) == wanted), None)


_PLAIN = re.compile(r"[@\w-]+")
_STEP = re.compile(r"""([^.\[\]]+)|\[("[^"]*"|'[^']*'|[^\]]*)\]""")
