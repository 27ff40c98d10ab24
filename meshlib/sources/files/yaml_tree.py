"""YAML and JSON text → located values, by events: no recursion, no tags that build objects, no unbounded aliases.

Scalars resolve as Envoy (yaml-cpp) and Kubernetes (go-yaml) read them: `yes` and `on` are booleans, so a string field
that is given one is reported by the schema instead of silently meaning another thing. Dates, `1:30` and `1e3` keep
their text or value without YAML 1.1's surprises.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from meshlib.sources.files.located import LocatedDict, LocatedList

MAX_DEPTH = 100
"""Levels of nesting; protobuf's own limit."""
MAX_VALUES = 1_000_000
"""Values in a document with every alias counted as often as it is used."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_IGNORE = "!ignore"  # Envoy: an item that only holds anchors
_BOOLEANS = {
    name: value
    for value, words in ((True, ("yes", "true", "on")), (False, ("no", "false", "off")))
    for word in words
    for name in (word, word.capitalize(), word.upper())
}
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*|0[0-7]+|0x[0-9a-fA-F]+|0o[0-7]+)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = {".inf": "Infinity", "+.inf": "Infinity", "-.inf": "-Infinity", ".nan": "NaN"}  # protobuf JSON's words


class YamlSyntaxError(Exception):
    """The text cannot be read. `transient`: it may merely be half written."""

    def __init__(self, line: int, reason: str, fix: str = "", *, transient: bool = False) -> None:
        super().__init__(line, reason, fix)
        self.line = line
        self.reason = reason
        self.fix = fix
        self.transient = transient


@dataclass(slots=True)
class _Frame:
    """An open collection. `key` is the mapping key waiting for its value; `merges` are the values of `<<`."""

    node: LocatedDict | LocatedList
    anchor: str | None
    ignored: bool
    key: str | None = None
    key_line: int = 0
    merges: list[tuple[Any, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file: its value and the line it begins on."""

    value: Any
    line: int


def parse_documents(text: str) -> list[Document]:
    """Every document of the text, empty ones left out. Raises `YamlSyntaxError`, and nothing else, for text that is
    not YAML or is refused (too deep, too large by aliases, duplicate keys, tags).
    """
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        raise _explain(error, text) from None
    except yaml.YAMLError as error:  # unreadable characters carry no mark
        raise YamlSyntaxError(_line_of_character(text), str(error).splitlines()[0]) from None
    return builder.documents


class _Builder:
    """Builds values from events with an explicit stack."""

    def __init__(self) -> None:
        self.documents: list[Document] = []
        self._stack: list[_Frame] = []
        self._anchors: dict[str, Any] = {}
        self._line = 1
        self._root: Any = None

    def take(self, event: Event) -> None:
        if isinstance(event, ScalarEvent):
            self._scalar(event)
        elif isinstance(event, MappingStartEvent):
            self._open(LocatedDict(_line(event)), event)
        elif isinstance(event, SequenceStartEvent):
            self._open(LocatedList(_line(event)), event)
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            self._close(_line(event))
        elif isinstance(event, AliasEvent):
            self._alias(event)
        elif isinstance(event, DocumentStartEvent):
            self._anchors, self._root = {}, None
        elif isinstance(event, DocumentEndEvent) and self._root is not None:
            self.documents.append(Document(self._root, self._line))

    def _scalar(self, event: ScalarEvent) -> None:
        line = _line(event)
        frame = self._stack[-1] if self._stack else None
        if frame is not None and isinstance(frame.node, LocatedDict) and frame.key is None:
            frame.key, frame.key_line = event.value, line
            return
        value = _resolve(event, line)
        if event.anchor:
            self._anchors[event.anchor] = value
        self._add(value, line, 1, ignored=event.tag == _IGNORE)

    def _open(self, node: LocatedDict | LocatedList, event: MappingStartEvent | SequenceStartEvent) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise YamlSyntaxError(node.line, f"nested deeper than {MAX_DEPTH} levels")
        if event.tag not in {None, "!", _IGNORE, "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}:
            raise YamlSyntaxError(node.line, f"the tag {event.tag!r} is not allowed", "remove it")
        if self._stack and isinstance(self._stack[-1].node, LocatedDict) and self._stack[-1].key is None:
            raise YamlSyntaxError(node.line, "a mapping or a list cannot be a key")
        if event.anchor:
            self._anchors.pop(event.anchor, None)  # an alias inside the collection it names would be endless
        self._stack.append(_Frame(node, event.anchor, ignored=event.tag == _IGNORE))

    def _close(self, line: int) -> None:
        frame = self._stack.pop()
        for source, merge_line in frame.merges:
            _merge(frame.node, source, merge_line)
        if frame.anchor:
            self._anchors[frame.anchor] = frame.node
        self._add(frame.node, line, frame.node.size, ignored=frame.ignored)

    def _alias(self, event: AliasEvent) -> None:
        line = _line(event)
        if event.anchor not in self._anchors:
            raise YamlSyntaxError(line, f"*{event.anchor} names no anchor that is complete before it")
        value = self._anchors[event.anchor]
        self._add(value, line, value.size if isinstance(value, LocatedDict | LocatedList) else 1, ignored=False)

    def _add(self, value: Any, line: int, size: int, *, ignored: bool) -> None:
        if not self._stack:
            self._root, self._line = value, value.line if isinstance(value, LocatedDict | LocatedList) else line
            return
        frame = self._stack[-1]
        frame.node.size += size
        if frame.node.size > MAX_VALUES:
            raise YamlSyntaxError(
                line, f"more than {MAX_VALUES} values, with aliases counted as often as they are used"
            )
        if isinstance(frame.node, LocatedList):
            if not ignored:
                frame.node.append(value)
                frame.node.lines.append(line if not isinstance(value, LocatedDict | LocatedList) else value.line)
            return
        _set(frame, value, ignored=ignored)


def _set(frame: _Frame, value: Any, *, ignored: bool) -> None:
    key, line = frame.key, frame.key_line
    frame.key = None
    if not isinstance(frame.node, LocatedDict) or key is None:
        raise YamlSyntaxError(line, "a value without a key")
    if ignored:
        return
    if key == "<<":
        frame.merges.append((value, line))
        return
    if key in frame.node:
        first = frame.node.lines[key]
        raise YamlSyntaxError(line, f"duplicate key {key!r}: it stands on line {first} already", "keep one of the two")
    frame.node[key] = value
    frame.node.lines[key] = line


def _merge(node: LocatedDict | LocatedList, source: Any, line: int) -> None:
    for part in source if isinstance(source, LocatedList) else (source,):
        if not isinstance(part, LocatedDict) or not isinstance(node, LocatedDict):
            raise YamlSyntaxError(line, "'<<' takes a mapping or a list of mappings")
        for key, value in part.items():
            if key not in node:
                node[key] = value
                node.lines[key] = part.lines[key]


def _resolve(event: ScalarEvent, line: int) -> Any:
    text: str = event.value
    if event.tag in {"tag:yaml.org,2002:str", "!"} or (event.tag is None and not event.implicit[0]):
        return text
    if event.tag not in {None, _IGNORE} and not event.tag.startswith("tag:yaml.org,2002:"):
        raise YamlSyntaxError(line, f"the tag {event.tag!r} is not allowed", "remove it")
    if event.tag is not None and event.tag.rpartition(":")[2] not in {"int", "float", "bool", "null", _IGNORE}:
        raise YamlSyntaxError(line, f"the tag {event.tag!r} is not allowed", "remove it")
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    return _number(text)


def _number(text: str) -> int | float | str:
    if len(text) < 400 and _INT.fullmatch(text):
        digits = text.lstrip("+-")
        octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
        return int(text, 8 if octal else 0)
    if len(text) < 400 and _FLOAT.fullmatch(text):
        return float(text)
    return _SPECIAL.get(text.lower(), text)


def _line(event: Event) -> int:
    mark = event.start_mark
    return int(mark.line) + 1 if mark is not None else 0  # the parser always marks; the type says otherwise


def _explain(error: yaml.MarkedYAMLError, text: str) -> YamlSyntaxError:
    mark: Any = error.problem_mark or error.context_mark
    line = int(mark.line) + 1 if mark else 0
    lines = text.splitlines()
    source = lines[line - 1] if 0 < line <= len(lines) else ""
    indentation = source[: len(source) - len(source.lstrip())]
    if "\t" in indentation:
        return YamlSyntaxError(line, "a tab indents this line", "YAML is indented with spaces", transient=True)
    problem = error.problem or "not YAML"
    return YamlSyntaxError(line, f"{error.context}, {problem}" if error.context else problem, transient=True)


def _line_of_character(text: str) -> int:
    bad = re.search(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
    return text.count("\n", 0, bad.start()) + 1 if bad else 0
