"""Path matchers: the test of one, and the patterns the route index finds it by."""

from __future__ import annotations

from collections.abc import Callable

from meshlib.model.matchers import PathMatcher
from meshlib.model.re2_program import re2_program
from meshlib.model.uri_template import parse_template
from meshlib.routing.regex import compile_regex
from meshlib.routing.text import as_wire, ascii_lower
from meshlib.routing.text_index import Pattern

PathTest = Callable[[str], bool]


def compile_path(matcher: PathMatcher) -> PathTest:
    """The test of a bare path (no query). Case-insensitive matching folds A-Z only; regexes and templates are always
    sensitive. A `connect_matcher` takes any path: it is the method that must be right.
    """
    match matcher.kind:
        case "safe_regex":
            return compile_regex(matcher.value).fullmatch
        case "uri_template":
            return compile_regex(parse_template(matcher.value).regex).fullmatch
        case "connect_matcher":
            return lambda path: True
    value = as_wire(matcher.value)
    if matcher.case_sensitive:
        return _sensitive(matcher.kind, value)
    test = _sensitive(matcher.kind, ascii_lower(value))
    return lambda path: test(ascii_lower(path))


def _sensitive(kind: str, value: str) -> PathTest:
    length = len(value)
    tests: dict[str, PathTest] = {
        "path": lambda path: path == value,
        "prefix": lambda path: path.startswith(value),
        "path_separated_prefix": lambda path: path.startswith(value) and path[length : length + 1] in ("", "/"),
    }
    return tests[kind]


def path_patterns(matcher: PathMatcher) -> tuple[Pattern, ...]:
    """What a path must be, one of these, to match. Raises `ResourceError` for a bad regular expression or template."""
    match matcher.kind:
        case "safe_regex":
            return (_regex(matcher.value),)
        case "uri_template":
            return (_regex(parse_template(matcher.value).regex),)
        case "connect_matcher":
            return (Pattern("prefix", ""),)
    any_case = not matcher.case_sensitive
    value = ascii_lower(as_wire(matcher.value)) if any_case else as_wire(matcher.value)
    exact, prefix = Pattern("exact", value, any_case), Pattern("prefix", value, any_case)
    match matcher.kind:
        case "path":
            return (exact,)
        case "prefix":
            return (prefix,)
        case _:
            return (exact, Pattern("prefix", value + "/", any_case))


def _regex(pattern: str) -> Pattern:
    re2_program(pattern, captures=False)  # not kept: the index runs them all as one
    return Pattern("regex", pattern)
