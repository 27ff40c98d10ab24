"""Texts with `%NAME(arguments):length%` operators (Envoy's substitution formatter), compiled.

An operator that has no value is empty text. What is not an operator, or is used as none can be, is refused with
`ResourceError` when it is compiled, never sent as wrong text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from meshlib.model.metadata import Struct, Value
from meshlib.model.operators import COMMAND, KNOWN, NO_VALUE
from meshlib.model.report import ResourceError
from meshlib.routing.facts import Scene
from meshlib.routing.operators import OPERATORS, Operator
from meshlib.routing.text import as_wire, wire_bytes

Format = Callable[[Scene], str]
JsonText = Callable[[Scene], str]
_Part = str | Operator


def compile_format(text: str, missing: str = "") -> str | Format:
    """The value itself when it has no operators (`%%` is a percent sign), else a function that makes it. `missing`
    stands for operators without a value.
    """
    parts = _parse(as_wire(text))
    operators = [part for part in parts if not isinstance(part, str)]
    if not operators:
        return "".join(part for part in parts if isinstance(part, str))
    if len(parts) == 1:
        only = operators[0]
        return lambda scene: missing if (value := only(scene)) is None else value
    return lambda scene: "".join(part if isinstance(part, str) else _or(part(scene), missing) for part in parts)


def _or(value: str | None, missing: str) -> str:
    return missing if value is None else value


def compile_json(template: Struct, *, omit_empty: bool = False) -> JsonText:
    """A JSON object whose strings are texts with operators. One that is an operator alone is a number where the
    operator counts something, and null, or left out with `omit_empty`, where it has no value. Keys are sorted, and a
    line feed ends it, as in Envoy.
    """
    make = _json_value(template, omit_empty)
    return lambda scene: as_wire(json.dumps(make(scene), separators=(",", ":"), ensure_ascii=False)) + "\n"


_ABSENT = object()
_NUMBERS = frozenset(
    (
        *("RESPONSE_CODE", "DURATION", "REQUEST_DURATION", "RESPONSE_DURATION", "COMMON_DURATION"),
        *("UPSTREAM_REQUEST_ATTEMPT_COUNT", "GRPC_STATUS_NUMBER", "UPSTREAM_REMOTE_PORT"),
    )
)


def _json_value(value: Value, omit_empty: bool) -> Callable[[Scene], object]:
    match value:
        case str():
            return _json_text(value, omit_empty)
        case Struct(items=items):
            made = [(key, _json_value(item, omit_empty)) for key, item in items]
            return lambda scene: {key: item for key, make in made if (item := make(scene)) is not _ABSENT}
        case tuple():
            several = [_json_value(item, omit_empty) for item in value]
            return lambda scene: [item for make in several if (item := make(scene)) is not _ABSENT]
        case float() if value.is_integer():
            whole = int(value)
            return lambda scene: whole
        case None if omit_empty:
            return lambda scene: _ABSENT
    return lambda scene: value


def _json_text(text: str, omit_empty: bool) -> Callable[[Scene], object]:
    parts = _parse(as_wire(text))
    if len(parts) == 1 and not isinstance(parts[0], str):
        only, missing = parts[0], _ABSENT if omit_empty else None
        read = int if text[1:].partition("%")[0].partition("(")[0] in _NUMBERS else _from_wire
        return lambda scene: missing if (value := only(scene)) is None else read(value)
    made = compile_format(text, "" if omit_empty else "-")
    return lambda scene: _from_wire(made if isinstance(made, str) else made(scene))


def _from_wire(text: str) -> str:
    return wire_bytes(text).decode("utf-8", "replace")


def _parse(text: str) -> list[_Part]:
    parts: list[_Part] = []
    end = 0
    for found in COMMAND.finditer(text):
        parts.append(text[end : found.start()])
        end = found.end()
        if found[0] == "%%":
            parts.append("%")
        elif found[0] == "%":
            raise ResourceError("value", f"{text!r}: a percent sign that is not part of an operator is written %%")
        else:
            try:
                parts.append(_operator(found["name"], found["arguments"] or "", found["length"]))
            except ResourceError as error:
                raise ResourceError("value", f"{found[0]}: {error.reason}") from error
    parts.append(text[end:])
    return [part for part in parts if part != ""]


def _operator(name: str, arguments: str, length: str | None) -> Operator:
    if name == "COALESCE":
        return _cut(_coalesce(arguments), length)
    make = OPERATORS.get(name)
    if make is not None:
        return make(name, arguments, None if length is None else int(length))
    if name in NO_VALUE:
        return lambda scene: None
    near = ", ".join(sorted(known for known in KNOWN if known.startswith(name.partition("_")[0])))
    raise ResourceError("value", f"{name} is no operator that is known here" + (f"; there are {near}" if near else ""))


def _cut(make: Operator, length: str | None) -> Operator:
    limit = None if length is None else int(length)
    return lambda scene: None if (value := make(scene)) is None else value[:limit]


def _coalesce(arguments: str) -> Operator:
    """`COALESCE({"operators": [...]})`: the first of several operators that has a value, and not an empty one."""
    try:
        entries = json.loads(arguments)["operators"]
        operators = [_coalesced(entry) for entry in entries]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        wanted = '{"operators": ["NAME", {"command": "NAME", "param": "...", "max_length": 1}]}'
        raise ResourceError("value", f"COALESCE takes {wanted}, not {arguments!r}") from error
    return lambda scene: next((value for make in operators if (value := make(scene))), None)


def _coalesced(entry: str | Mapping[str, object]) -> Operator:
    if isinstance(entry, str):
        return _operator(entry, "", None)
    length = entry.get("max_length")
    return _operator(
        str(entry["command"]), str(entry.get("param", "")), None if length is None else str(int(str(length)))
    )
