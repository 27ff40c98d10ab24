"""The unified matcher (`xds.type.matcher.v3.Matcher`) compiled: what a request leads to.

Of a list the first line whose predicate holds decides, of a tree the entry its input leads to; where neither leads
anywhere `on_no_match` does. A matcher within an action that leads nowhere is no match of its line: the next is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from meshlib.model import matcher_tree as model
from meshlib.model.request import RequestHead
from meshlib.routing.located import at
from meshlib.routing.prefix_trie import PrefixTrie
from meshlib.routing.query import first_parameter
from meshlib.routing.strings import compile_string
from meshlib.routing.text import as_wire

T = TypeVar("T")
Read = Callable[[RequestHead], str | None]
Holds = Callable[[RequestHead], bool]
Find = Callable[[RequestHead], T | None]


class MatcherTree(Generic[T]):
    """`find` gives the action a request leads to, None when it leads to none; `actions` are all there are."""

    __slots__ = ("actions", "find")

    def __init__(self, find: Find[T], actions: frozenset[T]) -> None:
        self.find = find
        self.actions = actions


def compile_matcher(matcher: model.Matcher[T]) -> MatcherTree[T]:
    """Raises `ResourceError` for a regular expression RE2 refuses. Actions are hashable, and never None."""
    compiler = _Compiler[T]()
    return MatcherTree(compiler.matcher(matcher), frozenset(compiler.actions))


class _Compiler(Generic[T]):
    def __init__(self) -> None:
        self.actions: list[T] = []

    def matcher(self, matcher: model.Matcher[T]) -> Find[T]:
        if isinstance(matcher, model.MatcherList):
            return self._with_default(self._lines(matcher.lines), matcher.on_no_match)
        with at("matcher_tree"):
            find = self._exact(matcher) if matcher.kind == "exact_match_map" else self._prefixes(matcher)
        return self._with_default(find, matcher.on_no_match)

    def _with_default(self, find: Find[T], on_no_match: model.OnMatch[T] | None) -> Find[T]:
        if on_no_match is None:
            return find
        with at("on_no_match"):
            otherwise = self._on_match(on_no_match)

        def found(head: RequestHead) -> T | None:
            action = find(head)
            return otherwise(head) if action is None else action

        return found

    def _on_match(self, on_match: model.OnMatch[T]) -> Find[T]:
        then = on_match.then
        if isinstance(then, model.MatcherList | model.MatcherTree):
            find = self.matcher(then)
            return _nowhere if on_match.keep_matching else find
        if on_match.keep_matching:
            return _nowhere
        self.actions.append(then)
        return lambda head: then

    def _lines(self, lines: tuple[model.FieldMatcher[T], ...]) -> Find[T]:
        compiled = []
        for index, line in enumerate(lines):
            with at(f"matcher_list.matchers[{index}]"):
                compiled.append((_predicate(line.predicate), self._on_match(line.on_match)))

        def find(head: RequestHead) -> T | None:
            for holds, then in compiled:
                if holds(head) and (action := then(head)) is not None:
                    return action
            return None

        return find

    def _exact(self, tree: model.MatcherTree[T]) -> Find[T]:
        read = compile_input(tree.input)
        entries = {as_wire(key): self._on_match(then) for key, then in tree.entries}

        def find(head: RequestHead) -> T | None:
            value = read(head)
            then = None if value is None else entries.get(value)
            return None if then is None else then(head)

        return find

    def _prefixes(self, tree: model.MatcherTree[T]) -> Find[T]:
        """The longest prefix first, then shorter ones, until one leads somewhere."""
        read = compile_input(tree.input)
        entries = {as_wire(key): self._on_match(then) for key, then in tree.entries}
        nothing: tuple[Find[T], ...] = ()
        trie = PrefixTrie(entries, lambda key, above: (entries[key], *above), nothing)

        def find(head: RequestHead) -> T | None:
            value = read(head)
            return None if value is None else _first(trie.find(value), head)

        return find


def _first(thens: Iterable[Find[T]], head: RequestHead) -> T | None:
    return next((action for then in thens if (action := then(head)) is not None), None)


def _nowhere(head: RequestHead) -> None:
    """A match that was only noted."""


def _predicate(predicate: model.Predicate) -> Holds:
    match predicate:
        case model.SinglePredicate(input=source, match=match):
            return _test(compile_input(source), compile_string(match))
        case model.Not(predicate=inner):
            holds = _predicate(inner)
            return lambda head: not holds(head)
        case model.OneOf(predicates=predicates):
            some = [_predicate(each) for each in predicates]
            return lambda head: any(holds(head) for holds in some)
        case model.AllOf(predicates=predicates):
            every = [_predicate(each) for each in predicates]
            return lambda head: all(holds(head) for holds in every)


def _test(read: Read, test: Callable[[str], bool]) -> Holds:
    def holds(head: RequestHead) -> bool:
        value = read(head)
        return value is not None and test(value)

    return holds


def compile_input(source: model.Input) -> Read:
    """What reads an input of a request, None where it is not there."""
    name = as_wire(source.name)
    match source.kind:
        case "header":
            return lambda head: head.get(name)
        case "query_parameter":
            return lambda head: first_parameter(head.query, name)
        case "filter_state":
            return lambda head: head.filter_state.get(name)
