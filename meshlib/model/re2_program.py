"""What a configured regular expression must be, for those who decode one and those who run it.

RE2 only, so that none of them can take exponential time: Python's `re` backtracks and is never used on one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meshlib.model.report import ResourceError

__all__ = ["MAX_PATTERN_LENGTH", "MAX_PROGRAM_SIZE", "has_re2", "re2_program", "re2_set"]

MAX_PATTERN_LENGTH = 16_384
"""Characters; checked before any work is done. Longer ones are a mistake."""
MAX_PROGRAM_SIZE = 32_768
"""Largest program accepted, in RE2's instructions. Istio sets Envoy's runtime key `re2.max_program_size.error_level` to
this; Envoy's own default, 100, refuses patterns that Istio sends."""


ANYTHING = rb"\C*"
"""Matches every text. In a set it tells a text that nothing else matches from a search that ran out of memory."""
_SET_MEMORY = (8 << 20, 32 << 20, 128 << 20)  # bytes a set may use, tried in turn; most need a fraction of the first


def has_re2() -> bool:
    """Whether there is RE2 to run anything on."""
    try:
        import re2
    except ImportError:
        return False
    return re2 is not None


def re2_set(patterns: Sequence[str]) -> Any | None:
    """Patterns, each known to compile, as one `RE2::Set` of whole-text matches, `ANYTHING` behind them; None when they
    are too many for the memory a set may have.
    """
    from re2 import Options, _re2

    for memory in _SET_MEMORY:
        options = Options()
        options.log_errors = False
        options.never_capture = True
        options.max_mem = memory
        compiled = _re2.Set(_re2.RE2.Anchor.ANCHOR_BOTH, options)
        for pattern in (*(pattern.encode() for pattern in patterns), ANYTHING):
            compiled.Add(pattern)
        if compiled.Compile() and compiled.Match(b"/"):
            return compiled
    return None


def re2_program(pattern: str, *, captures: bool) -> tuple[Any, Any]:
    """(The compiled `RE2` object, its `Anchor` enum). Raises `ResourceError` when RE2 refuses the pattern, it is too
    long or too large, or RE2 is not installed.

    The object below the bindings' own `re2.compile`, which costs 5 µs a match (it counts characters, builds match
    objects) where this takes bytes and 0.6 µs.
    """
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise ResourceError("regex", f"has {len(pattern)} characters, at most {MAX_PATTERN_LENGTH} are allowed")
    try:
        from re2 import Options, _re2
    except ImportError as missing:
        raise ResourceError("regex", "regular expressions need google-re2: pip install 'meshlib[re2]'") from missing
    options = Options()
    options.log_errors = False
    options.never_capture = not captures
    program = _re2.RE2(pattern.encode(), options)
    if not program.ok():
        raise ResourceError("regex", f"RE2 refuses {pattern!r}: {program.error().decode(errors='replace')}")
    if program.ProgramSize() > MAX_PROGRAM_SIZE:
        reason = f"{pattern!r} makes an RE2 program of size {program.ProgramSize()}, the limit is {MAX_PROGRAM_SIZE}"
        raise ResourceError("regex", reason)
    return program, _re2.RE2.Anchor
