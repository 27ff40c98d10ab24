"""OutlierDetection of a cluster, and the matcher of errors in its HttpProtocolOptions."""

from __future__ import annotations

from dataclasses import fields as fields_of
from typing import Any

from meshlib.model.cluster import ErrorMatcher, OutlierDetection
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import duration, wrapped
from meshlib.sources.xds.decode.context import Context, fields, join
from meshlib.sources.xds.decode.matchers import header_matcher

_TIMES = ("interval", "base_ejection_time", "max_ejection_time", "max_ejection_time_jitter")
_PLAIN = "split_external_local_origin_errors"
_WRAPPED = tuple(
    field.name for field in fields_of(OutlierDetection) if field.name not in (*_TIMES, _PLAIN, "error_matcher")
)
_DETECTION = fields(*_TIMES, _PLAIN, *_WRAPPED, instead={"monitors": "extensions do not run; the other detectors do"})
_ERRORS = fields("error_matcher")
_SETS = {"or_match": "or", "and_match": "and"}
_PREDICATE = fields(*_SETS, "not_match", "any_match", "http_response_headers_match")
_DEFAULT = OutlierDetection()
_DEEPEST = 16


def outlier_detection(ctx: Context, message: Any, path: str, matcher: ErrorMatcher | None) -> OutlierDetection:
    """`OutlierDetection`, with the `matcher` of the cluster's HTTP options. As Envoy, it refuses a `max_ejection_time`
    below `base_ejection_time`.
    """
    ctx.check_fields(message, path, _DETECTION)
    times: dict[str, Any] = {name: found for name in _TIMES if (found := duration(message, name)) is not None}
    base = times.get("base_ejection_time", _DEFAULT.base_ejection_time)
    longest = times.setdefault("max_ejection_time", max(_DEFAULT.max_ejection_time, base))
    if longest < base:
        raise ResourceError(join(path, "max_ejection_time"), f"is {longest:g} s, shorter than base_ejection_time")
    settings = {name: wrapped(message, name, getattr(_DEFAULT, name)) for name in _WRAPPED}
    split = message.split_external_local_origin_errors
    return OutlierDetection(**times, **settings, split_external_local_origin_errors=split, error_matcher=matcher)


def error_matcher(ctx: Context, message: Any, path: str) -> ErrorMatcher | None:
    """`HttpProtocolOptions.OutlierDetection`: None without a matcher that can be asked."""
    ctx.check_fields(message, path, _ERRORS)
    if not message.HasField("error_matcher"):
        return None
    return _predicate(ctx, message.error_matcher, join(path, "error_matcher"), _DEEPEST)


def _predicate(ctx: Context, message: Any, path: str, deepest: int) -> ErrorMatcher | None:
    """None for what cannot be matched here (requests, bodies, trailers), which is reported."""
    ctx.check_fields(message, path, _PREDICATE)
    kind = message.WhichOneof("rule")
    if not deepest:
        raise ResourceError(path, f"is nested more than {_DEEPEST} deep")
    if kind in _SETS:
        where = join(join(path, kind), "rules")
        rules = getattr(message, kind).rules
        found = [_predicate(ctx, rule, f"{where}[{n}]", deepest - 1) for n, rule in enumerate(rules)]
        return _whole(_SETS[kind], found)
    if kind == "not_match":
        return _whole("not", [_predicate(ctx, message.not_match, join(path, kind), deepest - 1)])
    if kind == "http_response_headers_match":
        where, headers = join(join(path, kind), "headers"), message.http_response_headers_match.headers
        tests = tuple(header_matcher(ctx, header, f"{where}[{n}]") for n, header in enumerate(headers))
        return ErrorMatcher("headers", headers=tests)
    return ErrorMatcher("any") if kind == "any_match" and message.any_match else None


def _whole(kind: Any, rules: list[ErrorMatcher | None]) -> ErrorMatcher | None:
    """A matcher of which a part cannot be asked is left out as a whole: it would say something else."""
    known = tuple(rule for rule in rules if rule is not None)
    return ErrorMatcher(kind, known) if len(known) == len(rules) else None
