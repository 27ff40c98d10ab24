"""Regular expressions of the control plane: RE2 only, so that none of them can take exponential time."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from meshlib.model.matchers import RegexRewrite
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.context import Context, fields, join

MAX_PATTERN_LENGTH = 16_384  # checked before any work is done; longer ones are a mistake
MAX_PROGRAM_SIZE = 32_768  # what Istio sets for its proxies; a bare Envoy stops at 100, which control planes outgrow

_GROUP = re.compile(r"\\(\d)")
_MATCHER = fields(
    "regex",
    harmless={"google_re2": "RE2 is the engine; its size limit is deprecated and bounded here by the pattern's length"},
)


@lru_cache(maxsize=4096)
def _compiled_groups(pattern: str) -> int | str:
    """The number of groups, or why the pattern is not valid."""
    try:
        import re2
    except ImportError:
        return "regular expressions need google-re2: pip install meshlib[re2]"
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        return f"is no valid RE2 expression: {reason.decode() if isinstance(reason, bytes) else reason}"
    if compiled.programsize > MAX_PROGRAM_SIZE:
        return f"makes an RE2 program of size {compiled.programsize}, at most {MAX_PROGRAM_SIZE} is allowed"
    return int(compiled.groups)


def _groups(pattern: str, path: str) -> int:
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise ResourceError(path, f"has {len(pattern)} characters, at most {MAX_PATTERN_LENGTH} are allowed")
    groups = _compiled_groups(pattern)
    if isinstance(groups, str):
        if "re2]" in groups:
            _compiled_groups.cache_clear()  # it may be installed while we run
        raise ResourceError(path, groups)
    return groups


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
