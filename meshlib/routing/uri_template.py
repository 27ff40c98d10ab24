"""Path rewrites by what a path template captured (`envoy.path.rewrite.uri_template`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from meshlib.model.re2_program import re2_program
from meshlib.model.uri_template import parse_template, rewrite_parts
from meshlib.routing.text import wire_bytes

Rewrite = Callable[[str], str]


@lru_cache(maxsize=4096)
def compile_template_rewrite(template: str, rewrite: str) -> Rewrite:
    """What makes the new path of an old one (neither with a query) that `template` matches: `rewrite` is a path with
    the template's variables, `/archive/{id}`. Raises `ResourceError` where they do not go together.
    """
    parsed = parse_template(template)
    parts = [part.encode() if isinstance(part, str) else part for part in rewrite_parts(parsed, rewrite)]
    program, anchor = re2_program(parsed.regex, captures=True)
    match, whole = program.Match, anchor.ANCHOR_BOTH

    def make(path: str) -> str:
        raw = wire_bytes(path)
        spans = match(whole, raw, 0, len(raw))
        if spans[0][0] < 0:  # a filter has changed the path since the route was chosen: Envoy leaves it then
            return path
        made = (part if isinstance(part, bytes) else raw[slice(*spans[part])] for part in parts)
        return b"".join(made).decode("latin-1")

    return make
