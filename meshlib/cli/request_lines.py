"""Requests as lines of JSON, and the explanation of each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshlib.explain import Explainer, Explanation

_FIELDS = {"method", "url", "headers"}


class RequestLineError(ValueError):
    """A line that is no request."""


def answers(explainer: Explainer, lines: Iterable[str]) -> Iterator[tuple[int, Explanation | str]]:
    """(Line number, explanation or what is wrong with the line); empty lines are skipped."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, explainer.explain(*_request(line))
        except (ValueError, RecursionError) as error:
            yield number, str(error)


def _request(line: str) -> tuple[str, str, list[tuple[str, str]]]:
    """Method, URL and headers of a line."""
    given = json.loads(line)
    if not isinstance(given, dict):
        raise RequestLineError("a request is an object with method, url and headers")
    if unknown := sorted(given.keys() - _FIELDS):
        raise RequestLineError(f"unknown field {unknown[0]!r}: a request has method, url and headers")
    method, url = given.get("method", "GET"), given.get("url")
    if not isinstance(method, str) or not isinstance(url, str):
        raise RequestLineError("url (and method, if given) must be a string")
    return method, url, _headers(given.get("headers") or {})


def _headers(given: object) -> list[tuple[str, str]]:
    items = list(given.items()) if isinstance(given, dict) else given
    if not isinstance(items, list) or not all(_is_pair(item) for item in items):
        raise RequestLineError("headers must be an object of strings or a list of [name, value]")
    return [(name, value) for name, value in items]


def _is_pair(item: object) -> bool:
    return isinstance(item, list | tuple) and len(item) == 2 and all(isinstance(part, str) for part in item)
