"""The header mutation filter: steps one after the other, each on what the last one left (`HeaderMutations` in Envoy).

Unlike a route's mutations, of which the removals come first and the overwrites before the additions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import quote, unquote_to_bytes

from meshlib.model.header_mutation import MutationStep
from meshlib.model.headers import HeaderValueOption
from meshlib.model.request import RequestHead
from meshlib.routing.formatters import compile_format
from meshlib.routing.headers import Addition, Headers, MakeFacts, Mutate, Target, header_name, in_turn, scene_of
from meshlib.routing.located import at
from meshlib.routing.strings import compile_string
from meshlib.routing.text import as_wire, wire_bytes

Prepare = Callable[[RequestHead, MakeFacts], RequestHead]
"""Changes a request before it is routed to an endpoint."""


def compile_steps(steps: Sequence[MutationStep], target: Target) -> Mutate | None:
    """The steps as one change, None when there are none. Raises `ResourceError` for `:pseudo` headers and `host`."""
    return in_turn(*(_step(index, step, target) for index, step in enumerate(steps)))


def _step(index: int, step: MutationStep, target: Target) -> Mutate:
    with at(f"{target}_mutations"):
        if step.append is not None:
            return _append(Addition(index, step.append), target)
        if step.remove_matching is not None:
            test = compile_string(step.remove_matching)
            return lambda headers, head, facts=None: [
                pair for pair in headers if not test(pair[0].decode("latin-1").lower())
            ]
        name = header_name(f"[{index}].remove", step.remove)
        return lambda headers, head, facts=None: [pair for pair in headers if pair[0].lower() != name]


def _append(addition: Addition, target: Target) -> Mutate:
    name, fixed = addition.name, isinstance(addition.value, bytes)

    def change(headers: Headers, head: RequestHead, facts: MakeFacts | None = None, /) -> Headers:
        value = addition.made(None if fixed else scene_of(target, headers, head, facts))
        if (not value and not addition.keep_empty) or not addition.applies(any(n.lower() == name for n, _ in headers)):
            return headers
        if addition.overwrites:
            headers = [pair for pair in headers if pair[0].lower() != name]
        return [*headers, (name, value)]

    return change


def compile_prepare(request: Sequence[MutationStep], query: Sequence[MutationStep]) -> Prepare | None:
    """What a request becomes: headers first, then query parameters, which see the new headers."""
    mutate = compile_steps(request, "request")
    rewrite = _query(query) if query else None
    if mutate is None and rewrite is None:
        return None

    def prepare(head: RequestHead, facts: MakeFacts) -> RequestHead:
        headers = head.headers if mutate is None else mutate(list(head.headers), head, facts)
        path = head.path if rewrite is None else rewrite(head, list(headers), facts)
        return head.like(path, headers)

    return prepare


_Parameters = dict[str, list[str]]


def _query(steps: Sequence[MutationStep]) -> Callable[[RequestHead, Headers, MakeFacts], str]:
    with at("query_parameter_mutations"):
        changes = [_parameter_step(index, step) for index, step in enumerate(steps)]

    def rewrite(head: RequestHead, headers: Headers, facts: MakeFacts) -> str:
        parameters = _parsed(head.query)
        for change in changes:
            change(parameters, head, headers, facts)
        query = "&".join(
            f"{quote(name, safe='', encoding='latin-1')}={quote(value, safe='', encoding='latin-1')}"
            for name in sorted(parameters)
            for value in parameters[name]
        )
        return head.path_only + (f"?{query}" if query else "")

    return rewrite


_Change = Callable[[_Parameters, RequestHead, Headers, MakeFacts], None]


def _parameter_step(index: int, step: MutationStep) -> _Change:
    if step.append is None:
        return _parameter_removal(as_wire(step.remove))
    with at(f"[{index}]"):
        return _parameter_append(step.append)


def _parameter_removal(name: str) -> _Change:
    def change(parameters: _Parameters, head: RequestHead, headers: Headers, facts: MakeFacts) -> None:
        parameters.pop(name, None)

    return change


def _parameter_append(option: HeaderValueOption) -> _Change:
    name, action, made = as_wire(option.name), option.append_action, compile_format(option.value)

    def change(parameters: _Parameters, head: RequestHead, headers: Headers, facts: MakeFacts) -> None:
        value = made if isinstance(made, str) else made(scene_of("request", headers, head, facts))
        exists = name in parameters
        if action == "ADD_IF_ABSENT" if exists else action == "OVERWRITE_IF_EXISTS":
            return
        if action == "APPEND_IF_EXISTS_OR_ADD":
            parameters.setdefault(name, []).append(value)
        else:
            parameters[name] = [value]

    return change


def _parsed(query: str) -> _Parameters:
    parameters: _Parameters = {}
    for pair in query.split("&"):
        if pair:
            name, _, value = pair.partition("=")
            parameters.setdefault(_decoded(name), []).append(_decoded(value))
    return parameters


def _decoded(text: str) -> str:
    return unquote_to_bytes(wire_bytes(text)).decode("latin-1")
