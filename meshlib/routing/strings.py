"""String matchers compiled to functions of one string (`envoy.type.matcher.v3.StringMatcher`)."""

from __future__ import annotations

from collections.abc import Callable

from meshlib.model.matchers import StringMatcher
from meshlib.routing.regex import compile_regex
from meshlib.routing.text import as_wire, ascii_lower

StringTest = Callable[[str], bool]


def compile_string(matcher: StringMatcher) -> StringTest:
    """The test a matcher makes. `ignore_case` folds A-Z only and has no effect on regexes, as in Envoy."""
    if matcher.kind == "safe_regex":
        return compile_regex(matcher.value).fullmatch
    value = as_wire(matcher.value)
    if not matcher.ignore_case:
        return _plain(matcher.kind, value)
    test = _plain(matcher.kind, ascii_lower(value))
    return lambda text: test(ascii_lower(text))


def _plain(kind: str, value: str) -> StringTest:
    tests: dict[str, StringTest] = {
        "exact": lambda text: text == value,
        "prefix": lambda text: text.startswith(value),
        "suffix": lambda text: text.endswith(value),
        "contains": lambda text: value in text,
    }
    return tests[kind]


def describe_string(matcher: StringMatcher) -> str:
    """The matcher in words: `exact 'a'`, `prefix 'a' (any case)`."""
    any_case = " (any case)" if matcher.ignore_case and matcher.kind != "safe_regex" else ""
    return f"{matcher.kind} {matcher.value!r}{any_case}"
