"""Mirror policies, internal redirects and stateful sessions as they are read, reported and refused."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.matchers import FractionalPercent
from meshlib.model.mirror import RequestMirrorPolicy
from meshlib.model.redirect import InternalRedirectPolicy
from meshlib.model.report import ResourceError
from meshlib.model.route import RouteAction
from meshlib.model.session import SessionCookie, SessionHeader, StatefulSession
from meshlib.sources.xds.decode import decode_message
from meshlib.sources.xds.decode.context import Context
from meshlib.sources.xds.decode.session import session_per_route, stateful_session
from meshlib.sources.xds.types import CLUSTER, ROUTE_CONFIGURATION
from parts import xds_resources as xds

Json = dict[str, Any]
PREDICATES = "type.googleapis.com/envoy.extensions.internal_redirect"


def read(action: Json, **changes: Any) -> tuple[RouteAction, list[str]]:
    """(The action, the paths of what was reported)."""
    from envoy.extensions.internal_redirect.allow_listed_routes.v3 import (  # noqa: F401  for what is in an Any
        allow_listed_routes_config_pb2,
    )
    from envoy.extensions.internal_redirect.previous_routes.v3 import previous_routes_config_pb2  # noqa: F401
    from envoy.extensions.internal_redirect.safe_cross_scheme.v3 import safe_cross_scheme_config_pb2  # noqa: F401

    route = {"match": {"prefix": "/"}, "route": {"cluster": "up", **action}}
    found = decode_message(xds.message(ROUTE_CONFIGURATION, xds.route_configuration("r", route)))
    made = found.resource.virtual_hosts[0].routes[0].action  # type: ignore[union-attr]
    assert isinstance(made, RouteAction)
    prefix = "virtual_hosts[0].routes[0].route."
    return made, [issue.path.removeprefix(prefix) for issue in found.issues]


def test_a_mirror_policy() -> None:
    action, reported = read(
        {
            "request_mirror_policies": [
                {"cluster": "shadow"},
                {
                    "cluster_header": "X-To",
                    "runtime_fraction": {"default_value": {"numerator": 5}, "runtime_key": "share"},
                    "trace_sampled": False,
                    "disable_shadow_host_suffix_append": True,
                    "host_rewrite_literal": "copy.test",
                    "request_headers_mutations": [
                        {"remove": "X-A"},
                        {"append": {"header": {"key": "X-B", "value": "1"}, "append_action": "ADD_IF_ABSENT"}},
                    ],
                },
            ]
        }
    )
    assert action.request_mirror_policies == (
        RequestMirrorPolicy("shadow"),
        RequestMirrorPolicy(
            cluster_header="x-to",
            fraction=FractionalPercent(5, runtime_key="share"),
            keeps_host=True,
            host_rewrite_literal="copy.test",
            request_headers=(
                HeaderMutations(remove=("x-a",)),
                HeaderMutations((HeaderValueOption("x-b", "1", "ADD_IF_ABSENT"),)),
            ),
            traced=False,
        ),
    )
    assert reported == []


def test_what_of_a_mirror_policy_is_reported() -> None:
    by_name = {"remove_on_match": {"key_matcher": {"prefix": "x-"}}}
    policy = {"cluster": "shadow", "trace_sampled": True, "request_headers_mutations": [by_name]}
    action, reported = read({"request_mirror_policies": [policy]})
    assert action.request_mirror_policies == (RequestMirrorPolicy("shadow"),)
    assert reported == [
        "request_mirror_policies[0].trace_sampled",
        "request_mirror_policies[0].request_headers_mutations[0].remove_on_match",
    ]


def predicate(kind: str, **fields: Any) -> Json:
    return {"name": kind, "typed_config": {"@type": f"{PREDICATES}.{kind}", **fields}}


@pytest.mark.parametrize(
    ("action", "policy"),
    [
        ({}, None),
        ({"internal_redirect_policy": {}}, InternalRedirectPolicy()),
        ({"internal_redirect_action": "HANDLE_INTERNAL_REDIRECT"}, InternalRedirectPolicy()),
        (
            {"internal_redirect_action": "HANDLE_INTERNAL_REDIRECT", "max_internal_redirects": 4},
            InternalRedirectPolicy(4),
        ),
        (
            {
                "internal_redirect_policy": {
                    "max_internal_redirects": 0,
                    "redirect_response_codes": [301, 418, 303],
                    "allow_cross_scheme_redirect": True,
                    "response_headers_to_copy": ["X-A"],
                    "predicates": [
                        predicate("previous_routes.v3.PreviousRoutesConfig"),
                        predicate("allow_listed_routes.v3.AllowListedRoutesConfig", allowed_route_names=["a", "b"]),
                        predicate("allow_listed_routes.v3.AllowListedRoutesConfig", allowed_route_names=["b", "c"]),
                        predicate("safe_cross_scheme.v3.SafeCrossSchemeConfig"),
                    ],
                }
            },
            InternalRedirectPolicy(0, (301, 303), True, ("b",), True, True, ("x-a",)),
        ),
    ],
)
def test_internal_redirects(action: Json, policy: InternalRedirectPolicy | None) -> None:
    made, reported = read(action)
    assert (made.internal_redirect, reported) == (policy, [])


def test_with_a_predicate_that_is_not_known_nothing_is_followed() -> None:
    unknown = {"name": "mine", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Empty"}}
    made, reported = read({"internal_redirect_policy": {"predicates": [unknown]}})
    assert made.internal_redirect is not None
    assert made.internal_redirect.codes == ()
    assert reported == ["internal_redirect_policy.predicates[0]"]


@pytest.mark.parametrize("name", ["host", ":path"])
def test_headers_that_say_where_a_request_goes_are_not_copied(name: str) -> None:
    with pytest.raises(ResourceError, match="cannot be copied"):
        read({"internal_redirect_policy": {"response_headers_to_copy": [name]}})


def test_override_host_statuses() -> None:
    def statuses(**common: Any) -> frozenset[str]:
        resource = xds.eds_cluster(common_lb_config=common)
        found = decode_message(xds.message(CLUSTER, resource))
        return found.resource.override_host_statuses  # type: ignore[union-attr, return-value]

    assert statuses() == {"UNKNOWN", "HEALTHY", "DEGRADED"}
    assert statuses(override_host_status={}) == set()
    assert statuses(override_host_status={"statuses": ["DRAINING"]}) == {"DRAINING"}


def session(state: Any, **fields: Any) -> tuple[StatefulSession, list[str]]:
    from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2

    message = stateful_session_pb2.StatefulSession(**fields)
    if state is not None:
        message.session_state.name = "state"
        message.session_state.typed_config.Pack(state)
    ctx = Context("test")
    made = stateful_session(ctx, message, "")
    disabled = stateful_session_pb2.StatefulSessionPerRoute(disabled=True)
    assert session_per_route(ctx, disabled, "") == (StatefulSession(), True)
    own = stateful_session_pb2.StatefulSessionPerRoute(stateful_session=message)
    assert session_per_route(Context("test"), own, "") == (made, False)
    return made, [issue.path for issue in ctx.issues]


def test_sessions() -> None:
    from envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2
    from envoy.extensions.http.stateful_session.envelope.v3 import envelope_pb2
    from envoy.extensions.http.stateful_session.header.v3 import header_pb2

    cookie = cookie_pb2.CookieBasedSessionState()
    cookie.cookie.name, cookie.cookie.path, cookie.cookie.ttl.seconds = "sid", "/app", 60
    cookie.cookie.attributes.add(name="SameSite", value="Lax")
    assert session(cookie, strict=True) == (
        StatefulSession(SessionCookie("sid", "/app", 60, (("SameSite", "Lax"),)), True),
        [],
    )
    header = header_pb2.HeaderBasedSessionState(name="X-Session")
    assert session(header) == (StatefulSession(SessionHeader("x-session")), [])
    assert session(None) == (StatefulSession(), [])
    envelope = envelope_pb2.EnvelopeSessionState()
    envelope.header.name = "x-session"
    assert session(envelope) == (StatefulSession(), ["session_state.typed_config"])
