"""The static layers of a bootstrap's runtime, and the fractions of routes that have a runtime key."""

import random
from pathlib import Path

import pytest

from meshlib.engine.runtime import Runtime
from meshlib.explain import Explainer
from meshlib.model.matchers import FractionalPercent, PathMatcher, RouteMatch
from meshlib.model.metadata import Struct
from meshlib.model.request import RequestHead
from meshlib.model.route import DirectResponseAction, Route, RouteConfiguration, VirtualHost
from meshlib.model.runtime import RuntimeLayer, flattened, layered
from meshlib.model.snapshot import Snapshot
from meshlib.sources.files.loader import load
from meshlib.sources.files.snapshot import build_snapshot

BOOTSTRAP = """
layered_runtime:
  layers:
  - {name: base, static_layer: {routes: {new: 100, old: {numerator: 5, denominator: MILLION}}, "x.y": "7"}}
  - {name: admin, admin_layer: {}}
  - {name: over, static_layer: {routes: {new: 0}}}
static_resources: {}
---
name: routes
virtual_hosts:
- name: h
  domains: [shop]
  routes:
  - match: {prefix: /, runtime_fraction: {default_value: {numerator: 100}, runtime_key: routes.new}}
    direct_response: {status: 201}
    name: new
  - match: {prefix: /}
    direct_response: {status: 200}
    name: old
"""


def test_static_layers_are_read_and_others_reported(tmp_path: Path) -> None:
    file = tmp_path / "bootstrap.yaml"
    file.write_text(BOOTSTRAP)
    snapshot, issues = build_snapshot(load([file]))
    assert snapshot.runtime == Struct.of(
        {"routes.new": 0, "routes.old": {"numerator": 5, "denominator": "MILLION"}, "x.y": 7}
    )
    assert [issue.path for issue in issues] == ["layered_runtime.layers[1].admin_layer"]


def test_a_route_goes_by_what_the_runtime_says(tmp_path: Path) -> None:
    file = tmp_path / "bootstrap.yaml"
    file.write_text(BOOTSTRAP)
    assert Explainer.from_files(file).explain("GET", "http://shop/").route == "h/old"
    file.write_text(BOOTSTRAP.replace("routes: {new: 0}", "other: 0"))
    assert Explainer.from_files(file).explain("GET", "http://shop/").route == "h/new"


@pytest.mark.parametrize(
    "said, share",
    [
        (30, 0.3),
        (0, 0.0),
        (1000, 1.0),
        ({"numerator": 5, "denominator": "TEN_THOUSAND"}, 0.0005),
        ({"numerator": 5, "denominator": 2}, 5e-6),
        ({"numerator": 5}, 0.05),
        ("text", 0.25),
        (-1, 0.25),
        (1.5, 0.25),
        (True, 0.25),
    ],
)
def test_what_a_key_may_say(said: object, share: float) -> None:
    percent = FractionalPercent(25, runtime_key="k")
    assert percent.resolved(Struct.of({"k": said})).fraction == pytest.approx(share)
    assert percent.resolved(Struct.of({"other": said})) is percent
    assert FractionalPercent(25).resolved(Struct.of({"": said})).fraction == 0.25


def test_later_layers_win() -> None:
    layers = [RuntimeLayer("a", Struct.of({"x": 1, "y": 1})), RuntimeLayer("b", flattened(Struct.of({"y": "2"})))]
    assert layered(layers) == Struct.of({"x": 1, "y": 2})


def test_tables_are_made_anew_when_the_runtime_says_otherwise() -> None:
    match = RouteMatch(PathMatcher("prefix", "/"), runtime_fraction=FractionalPercent(0, runtime_key="k"))
    config = RouteConfiguration("r", (VirtualHost("h", ("*",), (Route(match, DirectResponseAction(200)),)),))
    runtime = Runtime(random.Random(1))
    head = RequestHead("GET", "http", "shop", "/")
    plan, matched = None, []
    for said in ({}, {}, {"k": 100}, {"k": 0}):
        before = plan
        plan = runtime.compile(Snapshot(routes={"r": config}, runtime=Struct.of(said)), before)
        if said == {} and before is not None:
            assert plan.outbound.rest == before.outbound.rest  # taken over
        host = plan.find("http", "shop")
        assert host is not None
        matched.append(host.table.match(head, runtime.rng))
    assert matched == [-1, -1, 0, -1]
