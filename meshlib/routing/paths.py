"""Path matchers, one by one and as an index.

The index answers "which routes can match this path" without trying every route: exact paths are looked up, prefixes are
looked up once per distinct prefix length, only regexes are tried in turn. First-match-wins order is kept, because
candidates come out in route order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meshlib.model.matchers import PathMatcher
from meshlib.routing.regex import compile_regex
from meshlib.routing.text import as_wire, ascii_lower

PathTest = Callable[[str], bool]


def compile_path(matcher: PathMatcher) -> PathTest:
    """The test of a bare path (no query). Case-insensitive matching folds A-Z only; regexes are always sensitive."""
    if matcher.kind == "safe_regex":
        return compile_regex(matcher.value).fullmatch
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


_Indexes = tuple[int, ...]


class _Literals:
    """Exact paths and prefixes of one case rule."""

    __slots__ = ("_exact", "_prefixes")

    def __init__(self, matchers: Sequence[tuple[int, PathMatcher]], fold: Callable[[str], str]) -> None:
        self._exact: dict[str, _Indexes] = {}
        by_length: dict[int, dict[str, _Indexes]] = {}
        for index, matcher in matchers:
            value = fold(as_wire(matcher.value))
            table = self._exact if matcher.kind == "path" else by_length.setdefault(len(value), {})
            table[value] = (*table.get(value, ()), index)
        self._prefixes = tuple(sorted(by_length.items()))

    def find(self, path: str) -> _Indexes:
        found = self._exact.get(path, ())
        size = len(path)
        for length, table in self._prefixes:
            if length > size:
                break
            hit = table.get(path[:length])
            if hit is not None:
                found += hit
        return found


class PathIndex:
    """The routes of a virtual host by their paths."""

    __slots__ = ("_folded", "_literals", "_rest")

    def __init__(self, matchers: Sequence[PathMatcher]) -> None:
        literal = [(i, m) for i, m in enumerate(matchers) if m.kind != "safe_regex"]
        self._literals = _Literals([(i, m) for i, m in literal if m.case_sensitive], lambda text: text)
        folded = [(i, m) for i, m in literal if not m.case_sensitive]
        self._folded = _Literals(folded, ascii_lower) if folded else None
        self._rest: _Indexes = tuple(i for i, m in enumerate(matchers) if m.kind == "safe_regex")

    def candidates(self, path: str) -> Sequence[int]:
        """Indexes of routes whose path may match, ascending. Those of `needs_test` matchers are still to be tested."""
        found = self._literals.find(path)
        if self._folded is not None:
            found += self._folded.find(ascii_lower(path))
        if self._rest:
            found += self._rest
        return found if len(found) < 2 else sorted(found)


def needs_test(matcher: PathMatcher) -> bool:
    """Whether being a candidate is not yet a match."""
    return matcher.kind in ("safe_regex", "path_separated_prefix")
