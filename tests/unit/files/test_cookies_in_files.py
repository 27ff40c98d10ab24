"""`RouteMatch.cookies` in files: checked and taken like any field, though the installed protos lack it."""

from pathlib import Path

import pytest

from meshlib.model.matchers import CookieMatcher, RouteMatch
from meshlib.model.route import RouteConfiguration
from meshlib.model.strings import StringMatcher
from meshlib.sources.files.loader import load
from meshlib.sources.files.located import format_path
from meshlib.sources.files.messages import to_message
from meshlib.sources.files.snapshot import build_snapshot
from meshlib.sources.files.type_registry import ROUTE_CONFIGURATION
from meshlib.sources.files.yaml_tree import parse_documents

COOKIES = "[{name: side, string_match: {exact: b}}, {name: ü, stringMatch: {prefix: x}, invert_match: true}]"
FOUND = (CookieMatcher("side", StringMatcher("exact", "b")), CookieMatcher("ü", StringMatcher("prefix", "x"), True))
ROUTE = f"match: {{prefix: /, cookies: {COOKIES}}}, direct_response: {{status: 200}}"
ROUTES = f"virtual_hosts: [{{name: v, domains: ['*'], routes: [{{{ROUTE}}}]}}]"
TYPE = "type.googleapis.com/"
LISTENER = f"""
name: l
address: {{socket_address: {{address: 127.0.0.1, port_value: 80}}}}
filter_chains:
- filters:
  - name: hcm
    typed_config:
      "@type": {TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: l
      route_config: {{name: r, {ROUTES}}}
      http_filters: [{{name: r, typed_config: {{"@type": {TYPE}envoy.extensions.filters.http.router.v3.Router}}}}]
"""
TREE = f"""
name: r
virtual_hosts:
- name: v
  domains: ["*"]
  matcher:
    on_no_match:
      action:
        name: route
        typed_config: {{"@type": {TYPE}envoy.config.route.v3.Route, {ROUTE}}}
"""


def match_in(text: str, folder: Path) -> RouteMatch:
    (folder / "a.yaml").write_text(text)
    loaded = load([folder])
    assert loaded.issues == ()
    snapshot, issues = build_snapshot(loaded)
    assert list(issues) == []
    config: RouteConfiguration = next(iter(snapshot.routes.values()))
    return config.virtual_hosts[0].routes[0].match


@pytest.mark.parametrize("text", [f"name: r\n{ROUTES}", TREE])
def test_cookies_of_a_file_are_those_of_the_route(text: str, tmp_path: Path) -> None:
    assert match_in(text, tmp_path).cookies == FOUND


def test_cookies_inside_a_listener(tmp_path: Path) -> None:
    (tmp_path / "l.yaml").write_text(LISTENER)
    loaded = load([tmp_path])
    assert loaded.issues == ()
    snapshot, issues = build_snapshot(loaded)
    assert list(issues) == []
    config = snapshot.listeners["l"].managers[0].routes
    assert isinstance(config, RouteConfiguration)
    assert config.virtual_hosts[0].routes[0].match.cookies == FOUND


@pytest.mark.parametrize(
    "match, path, reason, fix",
    [
        ("cookie: []", "cookie", "RouteMatch has no field 'cookie'", "did you mean 'cookies'?"),
        ("cookies: {name: a}", "cookies", "a mapping where a list belongs", "begin each item"),
        ("cookies: [a]", "cookies[0]", "'a' where CookieMatcher belongs", "its fields are invert_match, name"),
        ("cookies: [{nam: a}]", "cookies[0].nam", "CookieMatcher has no field 'nam'", "did you mean 'name'?"),
        ("cookies: [{name: 1}]", "cookies[0].name", "1 where text belongs", "put it in quotes"),
        ("cookies: [{name: a, invert_match: so}]", "cookies[0].invert_match", "is not a boolean", "true or false"),
        ("cookies: [{name: a, string_match: {exact: a, prefix: b}}]", "cookies[0].string_match.prefix",
         "exact and prefix exclude each other", "keep one"),
    ],
)  # fmt: skip
def test_a_mistake_in_cookies_has_a_path_a_reason_and_a_fix(match: str, path: str, reason: str, fix: str) -> None:
    text = "virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /, MATCH}, route: {cluster: c}}]}]"
    (document,) = parse_documents(text.replace("MATCH", match))
    message, (problem,) = to_message(document.value, ROUTE_CONFIGURATION)
    assert message is None
    assert format_path(problem.path) == f"virtual_hosts[0].routes[0].match.{path}"
    assert reason in problem.reason
    assert fix in problem.fix


@pytest.mark.parametrize("cookie", ["{name: a}", "{string_match: {exact: a}}", "{name: '', string_match: {exact: a}}"])
def test_a_cookie_without_name_or_value_is_refused_where_it_stands(cookie: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"name: r\n{ROUTES.replace(COOKIES, f'[{cookie}]')}")
    _, issues = build_snapshot(load([tmp_path]))
    (issue,) = [issue for issue in issues if issue.severity == "error"]
    assert issue.path == "virtual_hosts[0].routes[0].match.cookies[0]"
    assert "required" in issue.reason
