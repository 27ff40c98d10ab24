"""Route cases: requests and what a configuration should do with them, read from YAML or JSON.

Two formats. Our own, `request` and `expect`:

    tests:
    - name: testers get the canary
      request: {url: http://payments/charge, headers: {x-canary: "1"}}
      expect: {cluster: payments-v2, path: /v2/charge}

and that of Envoy's router check tool, `input` and `validate` (`test_name`, `authority`, `path`, ...), so that tables
people have go on working. Source: Envoy's "Route table check tool" and its schema `envoy.RouterCheckToolSchema`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshlib.explain.request import head_from
from meshlib.explain.route_checks import CHECKS, HEADER_CHECKS, Check, HeaderCheck
from meshlib.model.report import Issue, ResourceError
from meshlib.model.request import RequestHead
from meshlib.sources.files.loader import parse_values
from meshlib.sources.files.located import LocatedDict, LocatedList, line_of

_DIGITS = re.compile("[0-9]{1,20}")
_OURS = frozenset(("name", "request", "random_value", "expect"))
_REQUEST = frozenset(("method", "url", "headers"))
_THEIRS = frozenset(("test_name", "input", "validate"))
_INPUT = frozenset(
    (
        "authority", "path", "method", "random_value", "ssl", "internal", "runtime",
        "additional_request_headers", "additional_response_headers",
    )
)  # fmt: skip
_NAMES = {
    "cluster_name": "cluster",
    "virtual_host_name": "virtual_host",
    "virtual_cluster_name": "virtual_cluster",
    "host_rewrite": "authority",
    "path_rewrite": "path",
    "path_redirect": "location",
    "timeout": "timeout",
}
"""What of Envoy's assertions is a check of ours under another name."""


@dataclass(frozen=True, slots=True)
class RouteCase:
    """One request and what is expected of it. `random_value` takes the place of chance, as in Envoy's tool: its
    remainder by the total weight of a route's clusters chooses one, and a runtime fraction holds where its remainder by
    the denominator is below. None: chance is chance, and what depends on it cannot be expected. `runtime`: the key of
    the only fractions that hold, "" for none; None: all do.
    """

    name: str
    head: RequestHead
    random_value: int | None
    checks: tuple[Check, ...]
    response_headers: tuple[tuple[str, str], ...] = ()
    file: str = ""
    line: int = 0
    runtime: str | None = None


class CaseError(Exception):
    """A case that cannot be read, with the path to the part that is wrong."""

    def __init__(self, path: tuple[str | int, ...], reason: str, fix: str = "") -> None:
        super().__init__(reason)
        self.path = path
        self.reason = reason
        self.fix = fix


def read_cases(path: Path) -> tuple[list[RouteCase], list[Issue]]:
    """Every case of a file, and what is wrong with it. Cases beside a wrong one are read all the same."""
    values, issues = parse_values(path)
    cases: list[RouteCase] = []
    if not values and not issues:
        issues.append(Issue("error", "route tests", "tests", "a list of tests is wanted", "", str(path), 1))
    for value in values:
        tests = value.get("tests") if isinstance(value, LocatedDict) else value
        if not isinstance(tests, LocatedList) or not tests:
            line = value.line if isinstance(value, LocatedDict | LocatedList) else 1
            issues.append(Issue("error", "route tests", "tests", "a list of tests is wanted", "", str(path), line))
            continue
        for index, item in enumerate(tests):
            try:
                cases.append(_case(item, str(path), tests.lines[index]))
            except CaseError as error:
                line = line_of(tests, (index, *error.path))
                where = f"tests[{index}]" + "".join(f".{step}" for step in error.path)
                issues.append(Issue("error", "route tests", where, error.reason, error.fix, str(path), line))
    return cases, issues


def _case(item: Any, file: str, line: int) -> RouteCase:
    if not isinstance(item, dict):
        raise CaseError((), "a test is an object with request and expect, or with input and validate")
    return _theirs(item, file, line) if "input" in item or "validate" in item else _ours(item, file, line)


def _ours(item: Mapping[str, Any], file: str, line: int) -> RouteCase:
    _only(item, _OURS, ())
    request = _object(item, "request", ())
    _only(request, _REQUEST, ("request",))
    method, url = _text(request, "method", ("request",), "GET"), _text(request, "url", ("request",))
    headers = [
        (name, _wire(_as_text(value, ("request", "headers", name))))
        for name, value in _object(request, "headers", ("request",), {}).items()
    ]
    expect = _object(item, "expect", ())
    if not expect:
        raise CaseError(("expect",), "expects nothing", f"one of {', '.join((*CHECKS, *HEADER_CHECKS))}")
    try:
        head = head_from(method, url, headers)
    except ValueError as error:
        raise CaseError(("request",), str(error)) from None
    checks = tuple(check for name in expect for check in _checks(name, expect[name], ("expect",)))
    return RouteCase(_text(item, "name", ()), head, _random(item, ()), checks, file=file, line=line)


def _checks(name: str, wanted: Any, path: tuple[str, ...]) -> Iterator[Check]:
    try:
        if name in HEADER_CHECKS:
            for header, value in _mapping(wanted, (*path, name)).items():
                yield HeaderCheck.of_value(HEADER_CHECKS[name], header, value)
        elif name in CHECKS:
            yield CHECKS[name](wanted)
        else:
            raise CaseError((*path, name), "is nothing to expect", f"one of {', '.join((*CHECKS, *HEADER_CHECKS))}")
    except (ValueError, ResourceError) as error:
        raise CaseError((*path, name), str(error)) from None


def _theirs(item: Mapping[str, Any], file: str, line: int) -> RouteCase:
    _only(item, _THEIRS, ())
    given = _object(item, "input", ())
    _only(given, _INPUT, ("input",))
    scheme = "https" if _flag(given, "ssl") else "http"
    authority, target = (_wire(_text(given, name, ("input",))) for name in ("authority", "path"))
    headers = [("host", authority), ("x-forwarded-proto", scheme)]
    headers += [("x-envoy-internal", "true")] if _flag(given, "internal") else []
    headers += _pairs(given, "additional_request_headers")
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    head = RequestHead(_text(given, "method", ("input",), "GET"), scheme, authority, target, raw)
    checks = tuple(_their_checks(_object(item, "validate", ())))
    if not checks:
        raise CaseError(("validate",), "validates nothing", f"one of {', '.join(_NAMES)}, ...")
    answer = tuple(_pairs(given, "additional_response_headers"))
    random_value = _random(given, ("input",)) or 0
    runtime = _as_text(given.get("runtime", ""), ("input", "runtime"))
    return RouteCase(_text(item, "test_name", ()), head, random_value, checks, answer, file, line, runtime)


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise CaseError(("input", name), f"{value!r} is neither true nor false")
    return value


def _their_checks(validate: Mapping[str, Any]) -> Iterator[Check]:
    for name, wanted in validate.items():
        if name in _NAMES:
            yield from _checks(_NAMES[name], wanted, ("validate",))
        elif name in _THEIR_HEADERS:
            of, read = _THEIR_HEADERS[name]
            if not isinstance(wanted, list):
                raise CaseError(("validate", name), "a list is wanted")
            for index, entry in enumerate(wanted):
                try:
                    yield read(of, entry)
                except (ValueError, ResourceError, CaseError) as error:
                    raise CaseError(("validate", name, index), str(error)) from None
        else:
            fix = f"one of {', '.join((*_NAMES, *_THEIR_HEADERS))}"
            raise CaseError(("validate", name), "is not validated here", fix)


def _field(of: str, entry: Any) -> HeaderCheck:
    """`{key, value}`: the header's value, "" where it must be missing."""
    if not isinstance(entry, dict) or not isinstance(entry.get("key"), str):
        raise CaseError((), "a header is {key: ..., value: ...}")
    return HeaderCheck.of_value(of, entry["key"], entry.get("value") or None)


_THEIR_HEADERS: dict[str, tuple[str, Callable[[str, Any], HeaderCheck]]] = {
    "request_header_fields": ("request", _field),
    "response_header_fields": ("response", _field),
    "request_header_matches": ("request", HeaderCheck.by_matcher),
    "response_header_matches": ("response", HeaderCheck.by_matcher),
}


def _pairs(given: Mapping[str, Any], name: str) -> list[tuple[str, str]]:
    entries = given.get(name) or []
    path = ("input", name)
    if not isinstance(entries, list):
        raise CaseError(path, "a list of {key: ..., value: ...} is wanted")
    pairs = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("key"), str):
            raise CaseError(path, "a header is {key: ..., value: ...}")
        pairs.append((_wire(entry["key"]), _wire(_as_text(entry.get("value", ""), path))))
    return pairs


def _random(given: Mapping[str, Any], path: tuple[str, ...]) -> int | None:
    value = given.get("random_value")
    if value is None:
        return None
    if isinstance(value, str) and _DIGITS.fullmatch(value):  # how JSON says 64 bits
        value = int(value)
    if type(value) is not int or not 0 <= value < 2**64:
        raise CaseError((*path, "random_value"), f"{str(value)[:40]!r} is no whole number from 0 of 64 bits")
    return value


def _only(given: Mapping[str, Any], known: frozenset[str], path: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise CaseError((*path, name), "is not known", f"known: {', '.join(sorted(known))}")


def _object(given: Mapping[str, Any], name: str, path: tuple[str, ...], default: Any = None) -> Mapping[str, Any]:
    return _mapping(given.get(name, default), (*path, name))


def _mapping(value: Any, path: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise CaseError(path, "an object is wanted" if value is not None else "is missing")
    return value


def _text(given: Mapping[str, Any], name: str, path: tuple[str, ...], default: str | None = None) -> str:
    value = given.get(name, default)
    if not isinstance(value, str) or not value:
        raise CaseError((*path, name), "a text is wanted" if value is not None else "is missing")
    return value


def _wire(text: str) -> str:
    """A text as the bytes that Envoy's tool would send, one character each: as matchers compare them."""
    return text.encode().decode("latin-1")


def _as_text(value: Any, path: tuple[str, ...]) -> str:
    if isinstance(value, str):
        return value
    raise CaseError(path, f"{value!r} is not a text", "put it into quotes")
