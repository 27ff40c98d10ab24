"""Outlier detection as it is written: each field by itself, and the matcher of errors."""

from typing import Any

import pytest

from meshlib.engine.error_matcher import as_told, compile_errors
from meshlib.model.cluster import ErrorMatcher, OutlierDetection
from meshlib.model.matchers import HeaderMatcher, StringMatcher
from meshlib.model.outcome import Failure, Outcome
from meshlib.model.report import Issue
from meshlib.policy.classify import classify
from meshlib.sources.xds.decode import decode_message
from meshlib.sources.xds.types import CLUSTER
from parts import xds_resources as xds

Json = dict[str, Any]
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
NUMBERS = {
    name: 7
    for name in OutlierDetection.__dataclass_fields__
    if OutlierDetection.__dataclass_fields__[name].type == "int"
}
TIMES = {"interval": 1.5, "base_ejection_time": 2.5, "max_ejection_time": 400.5, "max_ejection_time_jitter": 0.25}
FLAGS = {"always_eject_one_host": True, "split_external_local_origin_errors": True}
FLAGS |= {"successful_active_health_check_uneject_host": False}


def decoded(detection: Json, **more: Any) -> tuple[OutlierDetection, list[Issue]]:
    found = decode_message(xds.message(CLUSTER, xds.eds_cluster(outlier_detection=detection, **more)))
    return found.resource.outlier_detection, list(found.issues)


def header(value: str, name: str = ":status") -> Json:
    return {"http_response_headers_match": {"headers": [{"name": name, "string_match": {"exact": value}}]}}


def matching(matcher: Json) -> tuple[ErrorMatcher | None, list[Issue]]:
    options = {
        "@type": f"type.googleapis.com/{OPTIONS}",
        "explicit_http_config": {"http_protocol_options": {}},
        "outlier_detection": {"error_matcher": matcher},
    }
    found, issues = decoded({}, typed_extension_protocol_options={OPTIONS: options})
    return found.error_matcher, issues


def errors(matcher: Json) -> list[int]:
    """Of these answers, those that are told as errors, by what they are told as."""
    found, issues = matching(matcher)
    assert found is not None
    assert issues == []
    test = compile_errors(found)
    outcomes = [Outcome(status, [(b"x-sick", b"yes")] if status == 201 else []) for status in (200, 201, 404, 500, 503)]
    told = [as_told(test, outcome, classify(outcome)) for outcome in outcomes]
    return [verdict.status for verdict in told if verdict.counts_as_5xx]


@pytest.mark.parametrize("name,value", [*(NUMBERS | FLAGS | TIMES).items()])
def test_every_setting_is_taken(name: str, value: float) -> None:
    found, issues = decoded({name: f"{value}s" if name in TIMES else value})
    assert getattr(found, name) == value
    changed = {field for field in NUMBERS | FLAGS if getattr(found, field) != getattr(OutlierDetection(), field)}
    assert changed <= {name}
    assert issues == []


def test_extension_monitors_are_reported() -> None:
    extension = {"name": "m", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {}}}
    _, issues = decoded({"monitors": [extension]})
    assert [issue.path for issue in issues] == ["outlier_detection.monitors"]


def test_a_matcher_of_one_header() -> None:
    found, _ = matching(header("404"))
    assert found == ErrorMatcher("headers", headers=(HeaderMatcher(":status", StringMatcher("exact", "404")),))


@pytest.mark.parametrize(
    "matcher,told",
    [
        (header("404"), [500]),  # what is no 5xx counts as 500
        (header("503"), [503]),
        (header("yes", "x-sick"), [500]),
        ({"or_match": {"rules": [header("404"), header("503")]}}, [500, 503]),
        ({"and_match": {"rules": [header("201"), header("yes", "x-sick")]}}, [500]),
        ({"and_match": {"rules": [header("200"), header("yes", "x-sick")]}}, []),
        ({"not_match": header("200")}, [500, 500, 500, 503]),
        ({"any_match": True}, [500, 500, 500, 500, 503]),
    ],
)
def test_what_matches_is_an_error_and_nothing_else_is(matcher: Json, told: list[int]) -> None:
    assert errors(matcher) == told


def test_what_brought_no_response_stays_what_it_is() -> None:
    found, _ = matching(header("404"))
    assert found is not None
    outcome = Outcome(failure=Failure.CONNECT)
    assert as_told(compile_errors(found), outcome, classify(outcome)) is classify(outcome)


@pytest.mark.parametrize("asked", ["http_request_headers_match", "http_response_trailers_match"])
def test_a_matcher_of_something_else_is_reported_and_left_out_as_a_whole(asked: str) -> None:
    other = {asked: {"headers": [{"name": "x-a", "present_match": True}]}}
    found, issues = matching({"or_match": {"rules": [header("404"), other]}})
    assert found is None
    where = f'typed_extension_protocol_options["{OPTIONS}"].outlier_detection.error_matcher.or_match.rules[1]'
    assert [issue.path for issue in issues] == [f"{where}.{asked}"]
