"""What the route index sees of a route's match."""

from __future__ import annotations

from meshlib.model.matchers import RouteMatch, StringMatcher
from meshlib.model.re2_program import has_re2
from meshlib.routing.located import at
from meshlib.routing.paths import path_patterns
from meshlib.routing.route_index import IndexedRoute, Key
from meshlib.routing.strings import compile_string
from meshlib.routing.text import as_wire, ascii_lower
from meshlib.routing.text_index import Pattern


def indexed(match: RouteMatch) -> IndexedRoute:
    """Raises `ResourceError` for a path that cannot be compiled."""
    with at("path"):
        paths = path_patterns(match.path)
    if match == RouteMatch(match.path) and match.path.kind != "connect_matcher":
        return IndexedRoute(paths, {}, unconditional=True)
    keys: dict[Key, Pattern] = {}
    for header in match.headers:
        if not header.invert and (found := _pattern(header.match, or_missing=header.treat_missing_as_empty)):
            keys.setdefault(Key("header", as_wire(header.name)), found)
    for parameter in match.query_parameters:
        if found := _pattern(parameter.match):
            keys.setdefault(Key("query_parameter", as_wire(parameter.name)), found)
    for cookie in match.cookies:
        if not cookie.invert and (found := _pattern(cookie.match)):
            keys.setdefault(Key("cookie", as_wire(cookie.name)), found)
    return IndexedRoute(paths, keys, unconditional=False)


def _pattern(match: object, *, or_missing: bool = False) -> Pattern | None:
    """What one value must be at least: the condition itself is still tested. None for a matcher that is no test of a
    text, or may hold without a value.
    """
    if not isinstance(match, StringMatcher) or (or_missing and compile_string(match)("")):
        return None
    value = as_wire(match.value)
    folded = ascii_lower(value) if match.ignore_case else value
    match match.kind:
        case "exact":
            return Pattern("exact", folded, match.ignore_case)
        case "prefix":
            return Pattern("prefix", folded, match.ignore_case)
        case "safe_regex":
            return Pattern("regex", match.value)
    if not has_re2():
        return None
    any_case = "(?i)" if match.ignore_case else ""
    behind = r"\C*" if match.kind == "contains" else ""
    return Pattern("regex", rf"{any_case}\C*{_literal(match.value)}{behind}")


def _literal(text: str) -> str:
    """A regular expression of a text."""
    return "".join(c if c.isalnum() or not c.isascii() else f"\\x{ord(c):02x}" for c in text)
