"""Regular expressions of the control plane: RE2 only, so that none of them can take exponential time."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from meshlib.model.matchers import RegexRewrite
from meshlib.model.re2_program import re2_program
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.context import Context, fields, join

_GROUP = re.compile(r"\\(\d)")
_MATCHER = fields(
    "regex",
    harmless={"google_re2": "RE2 is the engine; its size limit is deprecated and bounded here by the pattern's length"},
)


@lru_cache(maxsize=4096)
def _groups(pattern: str, path: str) -> int:
    """How many groups the pattern has."""
    try:
        return int(re2_program(pattern, captures=True)[0].NumberOfCapturingGroups())
    except ResourceError as error:
        raise ResourceError(path, error.reason) from error


def regex(ctx: Context, message: Any, path: str) -> str:
    """The pattern of an `envoy.type.matcher.v3.RegexMatcher`, known to compile."""
    ctx.check_fields(message, path, _MATCHER)
    _groups(message.regex, join(path, "regex"))
    return str(message.regex)


_REWRITE = fields("pattern", "substitution")


def regex_rewrite(ctx: Context, message: Any, path: str) -> RegexRewrite | None:
    """A `RegexMatchAndSubstitute`; None, reported, for one that never rewrites: it names a group that is not there.

    Envoy takes such a rewrite and then leaves every value as it is.
    """
    ctx.check_fields(message, path, _REWRITE)
    regex(ctx, message.pattern, join(path, "pattern"))
    available = _groups(message.pattern.regex, join(path, "pattern"))
    wanted = max((int(group) for group in _GROUP.findall(message.substitution.replace("\\\\", ""))), default=0)
    if wanted > available:
        reason = f"names group {wanted}, the pattern has {available}; nothing is rewritten, as in Envoy"
        ctx.degraded(join(path, "substitution"), reason)
        return None
    return RegexRewrite(message.pattern.regex, message.substitution)
