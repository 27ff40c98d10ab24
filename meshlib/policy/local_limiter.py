"""The limiter of `envoy.filters.http.local_ratelimit`: buckets for descriptors, and the default one.

As in Envoy 1.40: of the descriptors that a request has, the one whose bucket fills slowest is asked first; what was
taken from one bucket is not given back when a later one is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

from meshlib.model.filters import LocalRateLimit, LocalRateLimitDescriptor
from meshlib.model.rate_limits import Descriptor, Entry, XRateLimitHeaders
from meshlib.policy.keyed import Keyed
from meshlib.policy.rate_limit import LocalTokenBucket


class Taken(NamedTuple):
    """`allowed`: there were tokens. `bucket` is the first that was empty, or else the one the request is held against
    first (None: there is none); `x_ratelimit` what its descriptor says of headers. `shadowed`: it is allowed, though
    the bucket of a descriptor in shadow mode was empty.
    """

    allowed: bool
    bucket: LocalTokenBucket | None = None
    x_ratelimit: XRateLimitHeaders = "UNSPECIFIED"
    shadowed: bool = False


class _Wildcard:
    """A descriptor with entries of any value: a bucket for each combination."""

    __slots__ = ("_buckets", "_config", "_entries")

    def __init__(self, config: LocalRateLimitDescriptor, most: int) -> None:
        self._config = config
        self._entries = config.entries
        self._buckets: Keyed[tuple[Entry, ...], LocalTokenBucket] = Keyed(
            lambda key, now: LocalTokenBucket(config.token_bucket), most
        )

    def find(self, entries: tuple[Entry, ...], now: float) -> LocalTokenBucket | None:
        """The bucket of a request's descriptor, None where it is another one."""
        if len(entries) != len(self._entries):
            return None
        for entry, known in zip(entries, self._entries, strict=True):
            if entry[0] != known[0] or (known[1] and entry[1] != known[1]):
                return None
        return self._buckets.get(entries, now)

    @property
    def shadow_mode(self) -> bool:
        """Whether it only counts."""
        return self._config.shadow_mode


class LocalLimiter:
    """The buckets of one configuration, which all its requests share. Thread-safe."""

    __slots__ = ("__weakref__", "_always", "_fixed", "_wild", "default")

    def __init__(self, config: LocalRateLimit) -> None:
        self.default = LocalTokenBucket(config.token_bucket) if config.token_bucket is not None else None
        self._always = config.always_consume_default_token_bucket
        self._fixed: dict[tuple[Entry, ...], tuple[LocalTokenBucket, bool]] = {}
        self._wild: list[_Wildcard] = []
        for item in config.descriptors:
            if all(value for _, value in item.entries):
                self._fixed[item.entries] = (LocalTokenBucket(item.token_bucket), item.shadow_mode)
            else:
                self._wild.append(_Wildcard(item, config.max_dynamic_descriptors))

    def take(self, now: float, descriptors: Sequence[Descriptor], instances: int = 1) -> Taken:
        """Take the tokens of a request with these descriptors. Of a limit that `instances` share each token counts as
        many times.
        """
        shadowed, found = None, self._find(descriptors, now)
        for _, bucket, shadow, descriptor in found:
            hits = 1 if descriptor.hits_addend is None else descriptor.hits_addend
            if hits and bucket.take(now, hits * instances):  # as in Envoy, no hits at all are too many
                continue
            if not shadow:
                return Taken(False, bucket, descriptor.x_ratelimit)
            if shadowed is None:
                shadowed = Taken(True, bucket, descriptor.x_ratelimit, shadowed=True)
        default = self.default
        if default is not None and (self._always or not found) and not default.take(now, instances):
            return Taken(False, default)
        if shadowed is not None:
            return shadowed
        return Taken(True, found[0][1], found[0][3].x_ratelimit) if found else Taken(True, default)

    def _find(
        self, descriptors: Sequence[Descriptor], now: float
    ) -> list[tuple[float, LocalTokenBucket, bool, Descriptor]]:
        """(Rate, bucket, whether it only counts, descriptor) of those that are limited, the slowest first."""
        found = []
        for descriptor in descriptors:
            fixed = self._fixed.get(descriptor.entries)
            if fixed is not None:
                found.append((fixed[0].rate, *fixed, descriptor))
                continue
            for wild in self._wild:
                bucket = wild.find(descriptor.entries, now)
                if bucket is not None:
                    found.append((bucket.rate, bucket, wild.shadow_mode, descriptor))
                    break
        if len(found) > 1:
            found.sort(key=itemgetter(0))
        return found
