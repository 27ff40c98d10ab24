"""Which responses outlier detection takes for errors, where a matcher of headers says so and not the status."""

from __future__ import annotations

from collections.abc import Callable

from meshlib.model.cluster import ErrorMatcher
from meshlib.model.outcome import Outcome
from meshlib.model.request import RequestHead
from meshlib.policy.classify import Classification, classify
from meshlib.policy.retry import ResponseHead
from meshlib.routing.matchers import HeaderPredicate

Errors = Callable[[RequestHead], bool]
_GOOD, _BAD = classify(Outcome(200)), classify(Outcome(500))


def compile_errors(matcher: ErrorMatcher) -> Errors:
    """The matcher as a test of a `ResponseHead`. Raises `ResourceError` for a regular expression that is none."""
    if matcher.kind == "headers":
        tests: list[Errors] = [HeaderPredicate(header) for header in matcher.headers]
        return lambda head: all(test(head) for test in tests)
    rules = [compile_errors(rule) for rule in matcher.rules]
    if matcher.kind == "not":
        return lambda head: not rules[0](head)
    if matcher.kind == "or":
        return lambda head: any(rule(head) for rule in rules)
    return lambda head: all(rule(head) for rule in rules)  # `any` has no rules: it matches everything


def as_told(errors: Errors | None, outcome: Outcome, verdict: Classification) -> Classification:
    """What outlier detection is told, as in Envoy: a response that matches is an error, a 500 unless it is a 5xx
    already; every other response is a success. What brought no response stays what it is.
    """
    if errors is None or outcome.failure is not None:
        return verdict
    if not errors(ResponseHead(outcome.status or 0, outcome.headers or ())):
        return _GOOD
    return verdict if verdict.counts_as_5xx else _BAD
