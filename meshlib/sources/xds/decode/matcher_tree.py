"""`xds.type.matcher.v3.Matcher`, the unified matcher, over whatever its actions are decoded to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from meshlib.model.matcher_tree import (
    AllOf,
    FieldMatcher,
    Input,
    Matcher,
    MatcherList,
    MatcherTree,
    Not,
    OneOf,
    OnMatch,
    Predicate,
    SinglePredicate,
)
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import unpack
from meshlib.sources.xds.decode.context import Context, UnsupportedError, join
from meshlib.sources.xds.decode.string_matcher import string_matcher

T = TypeVar("T")
Action = Callable[[Any, str], T]
"""Decodes the `Any` of an action."""

_INPUTS_MODULE = "envoy.type.matcher.v3.http_inputs_pb2"
_HEADER = "envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
_QUERY = "envoy.type.matcher.v3.HttpRequestQueryParamMatchInput"
_FILTER_STATE = "envoy.extensions.matching.common_inputs.network.v3.FilterStateInput"
_INPUTS = {
    _HEADER: _INPUTS_MODULE,
    _QUERY: _INPUTS_MODULE,
    _FILTER_STATE: "envoy.extensions.matching.common_inputs.network.v3.network_inputs_pb2",
}
ROUTE_INPUTS = frozenset({_HEADER, _FILTER_STATE})
"""What the matcher of a virtual host may look at; Envoy refuses other inputs there."""
REQUEST_INPUTS = frozenset(_INPUTS)
_MAPS = ("exact_match_map", "prefix_match_map")


def matcher(
    ctx: Context,
    message: Any,
    path: str,
    action: Action[T],
    inputs: frozenset[str] = REQUEST_INPUTS,
    *,
    may_keep: bool = False,
) -> Matcher[T]:
    """A matcher whose inputs are among `inputs`; `may_keep`: whether `keep_matching` has a place in it. Raises
    `UnsupportedError` for a part that is not supported.
    """
    return _Decoder(ctx, action, inputs, may_keep=may_keep).matcher(message, path)


class _Decoder(Generic[T]):
    def __init__(self, ctx: Context, action: Action[T], inputs: frozenset[str], *, may_keep: bool) -> None:
        self._ctx = ctx
        self._action = action
        self._inputs = inputs
        self._may_keep = may_keep

    def matcher(self, message: Any, path: str) -> Matcher[T]:
        otherwise = None
        if message.HasField("on_no_match"):
            otherwise = self._on_match(message.on_no_match, join(path, "on_no_match"))
        if message.WhichOneof("matcher_type") == "matcher_tree":
            return self._tree(message.matcher_tree, join(path, "matcher_tree"), otherwise)
        where = join(path, "matcher_list.matchers")
        lines = (self._line(item, f"{where}[{index}]") for index, item in enumerate(message.matcher_list.matchers))
        return MatcherList(tuple(lines), otherwise)

    def _line(self, message: Any, path: str) -> FieldMatcher[T]:
        predicate = self._predicate(message.predicate, join(path, "predicate"))
        return FieldMatcher(predicate, self._on_match(message.on_match, join(path, "on_match")))

    def _on_match(self, message: Any, path: str) -> OnMatch[T]:
        if message.keep_matching and not self._may_keep:
            raise ResourceError(join(path, "keep_matching"), "has no place here")
        if message.WhichOneof("on_match") == "matcher":
            return OnMatch(self.matcher(message.matcher, join(path, "matcher")), message.keep_matching)
        found = self._action(message.action.typed_config, join(path, "action.typed_config"))
        return OnMatch(found, message.keep_matching)

    def _predicate(self, message: Any, path: str) -> Predicate:
        kind = message.WhichOneof("match_type")
        found, where = getattr(message, kind), join(path, kind)
        match kind:
            case "single_predicate":
                return self._test(found, where)
            case "not_matcher":
                return Not(self._predicate(found, where))
        predicates = tuple(
            self._predicate(item, f"{join(where, 'predicate')}[{index}]") for index, item in enumerate(found.predicate)
        )
        return OneOf(predicates) if kind == "or_matcher" else AllOf(predicates)

    def _test(self, message: Any, path: str) -> SinglePredicate:
        if message.WhichOneof("matcher") == "custom_match":
            raise UnsupportedError(join(path, "custom_match"), "custom matchers are not supported")
        match = string_matcher(self._ctx, message.value_match, join(path, "value_match"))
        return SinglePredicate(self._input(message.input, join(path, "input")), match)

    def _tree(self, message: Any, path: str, otherwise: OnMatch[T] | None) -> MatcherTree[T]:
        kind: Any = message.WhichOneof("tree_type")
        if kind not in _MAPS:
            raise UnsupportedError(join(path, str(kind)), "custom matchers are not supported")
        where = join(path, f"{kind}.map")
        entries = getattr(message, kind).map
        found = ((key, self._on_match(entries[key], f'{where}["{key}"]')) for key in sorted(entries))
        return MatcherTree(self._input(message.input, join(path, "input")), kind, tuple(found), otherwise)

    def _input(self, message: Any, path: str) -> Input:
        return match_input(message, path, self._inputs)


def match_input(message: Any, path: str, inputs: frozenset[str] = REQUEST_INPUTS) -> Input:
    """What a `TypedExtensionConfig` says to look at, which is among `inputs`. Raises `UnsupportedError` for what is not
    supported at all.
    """
    where = join(path, "typed_config")
    name, found = unpack(message.typed_config, _INPUTS, where)
    if found is None:
        raise UnsupportedError(where, f"the input {name!r} is not supported")
    if name not in inputs:
        raise ResourceError(where, f"the input {name!r} has no place here")
    match name:
        case "envoy.type.matcher.v3.HttpRequestHeaderMatchInput":
            return Input("header", found.header_name.lower())
        case "envoy.type.matcher.v3.HttpRequestQueryParamMatchInput":
            return Input("query_parameter", found.query_param)
    return Input("filter_state", found.key)
