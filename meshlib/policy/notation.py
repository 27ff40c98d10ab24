"""Rate limits as people write them: `100/minute`, in the notation of `limits`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.model.filters import LocalRateLimit, TokenBucket
from meshlib.model.matchers import ALWAYS

if TYPE_CHECKING:
    from limits import RateLimitItem


def parse_limit(limit: str) -> RateLimitItem:
    """A limit in the notation of `limits`; raises ValueError that shows the notation, ImportError without it."""
    from limits import parse

    try:
        return parse(limit)
    except ValueError as error:
        raise ValueError(f"limit {limit!r} is not valid (write for example 100/minute): {error}") from error


def local_limit(limit: str, name: str = "") -> LocalRateLimit:
    """A local rate limit for every request: `local_limit("100/minute")` is a bucket of 100 tokens filled in a minute.

    (`LocalRateLimit` itself is Envoy's filter, which is enabled and enforced for 0 % of the requests unless told
    otherwise: right for configuration, a trap in code.) Needs the `limits` extra for the notation.
    """
    item = parse_limit(limit)
    bucket = TokenBucket(item.amount, item.amount, float(item.get_expiry()))
    return LocalRateLimit(name or limit, bucket, ALWAYS, ALWAYS)
