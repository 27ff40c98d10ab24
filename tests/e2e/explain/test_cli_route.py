"""`meshlib route test` as a process: both formats, failures with their line, coverage, reports for programs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[3]
MESHLIB = [sys.executable, "-c", "import sys; from meshlib.cli import main; sys.exit(main())"]
CONFIGURATION = """\
"@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
name: routes
virtual_hosts:
- name: shop
  domains: [shop]
  virtual_clusters:
  - {name: writes, headers: [{name: ":method", string_match: {exact: POST}}]}
  routes:
  - {name: old, match: {prefix: /old}, redirect: {path_redirect: /new}}
  - {name: gone, match: {path: /gone}, direct_response: {status: 410, body: {inline_string: gone}}}
  - name: half
    match: {prefix: /half, runtime_fraction: {runtime_key: shop.half, default_value: {numerator: 30}}}
    route: {cluster: a}
  - name: split
    match: {prefix: /}
    route:
      prefix_rewrite: /v2/
      timeout: 3s
      retry_policy: {retry_on: 5xx, num_retries: 2}
      weighted_clusters: {clusters: [{name: a, weight: 30}, {name: b, weight: 70}]}
    request_headers_to_add: [{header: {key: x-a, value: "1"}}]
    response_headers_to_add: [{header: {key: x-r, value: "2"}}]
---
"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
name: a
load_assignment: {cluster_name: a, endpoints: [{lb_endpoints: [
  {endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 81}}}}]}]}
---
"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
name: b
"""
CASES = """\
tests:
- name: shares
  request: {url: http://shop/x, headers: {accept: "*/*"}}
  expect:
    weights: {a: 30, b: 70}
    virtual_host: shop
    path: /v2/x
    timeout: 3s
    num_retries: 2
    request_headers: {x-a: "1", x-b: null, accept: {contains: /}}
    response_headers: {x-r: {prefix: "2"}}
- {name: low, request: {url: http://shop/half}, random_value: 29, expect: {route: half, endpoint: "127.0.0.1:81"}}
- {name: high, request: {url: http://shop/half}, random_value: 130, expect: {route: shop/split, cluster: b}}
- {name: nobody there, request: {url: http://shop/}, random_value: 99, expect: {cluster: b, response_flag: UH}}
- name: gone
  request: {method: POST, url: http://shop/gone}
  expect: {status: 410, body: gone, virtual_cluster: writes}
- {name: not ours, request: {url: http://other/}, expect: {pass_through: true}}
- test_name: a redirect
  input: {authority: shop, path: "/old/x?a=1", ssl: true}
  validate: {path_redirect: "https://shop/new?a=1", cluster_name: ""}
- test_name: a rewrite
  input:
    authority: shop
    path: /x
    random_value: 129
    internal: true
    additional_request_headers: [{key: x-user, value: ada}]
    additional_response_headers: [{key: x-s, value: here}]
  validate:
    cluster_name: a
    virtual_host_name: shop
    virtual_cluster_name: other
    path_rewrite: /v2/x
    host_rewrite: shop
    timeout: 3s
    request_header_matches:
    - {name: ":path", string_match: {prefix: /v2}}
    - {name: x-user, string_match: {exact: ada}}
    - {name: x-envoy-internal, present_match: true}
    - {name: x-q, present_match: true, invert_match: true}
    request_header_fields: [{key: x-forwarded-proto, value: http}, {key: x-none, value: ""}]
    response_header_fields: [{key: x-r, value: "2"}, {key: x-s, value: here}]
"""


def route_test(folder: Path, cases: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "routes.yaml").write_text(CONFIGURATION)
    (folder / "cases.yaml").write_text(cases)
    command = [*MESHLIB, "route", "test", "cases.yaml", "--config", "routes.yaml", *options]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


def test_cases_of_both_formats_pass_and_reach_every_route(tmp_path: Path) -> None:
    done = route_test(tmp_path, CASES, "--fail-under", "100")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 case(s), 0 failed; 5 of 5 routes reached (100.0 %)" in done.stdout
    assert done.stderr.count("\n") == 2, done.stderr  # that b has no endpoints, and virtual clusters no statistics


def test_a_failure_tells_what_was_wanted_what_came_and_where_the_case_stands(tmp_path: Path) -> None:
    cases = """\
tests:
- name: draws
  request: {url: http://shop/x}
  expect: {cluster: a}
- name: all wrong
  request: {url: http://shop/x}
  random_value: 0
  expect: {cluster: b, path: /x, request_headers: {x-a: "2", host: null}, status: 200}
- {name: fine, request: {url: http://shop/x}, expect: {virtual_host: shop}}
"""
    done = route_test(tmp_path, cases, "--only-failures", "--details", "--fail-under", "90")
    assert done.returncode == 1
    for line in (
        "FAIL  draws  (cases.yaml:2)",
        "cluster: the route draws among 30 a, 70 b: give the case a random_value, or expect weights",
        "FAIL  all wrong  (cases.yaml:5)",
        "cluster: wanted 'b', got 'a'",
        "path: wanted '/x', got '/v2/x'",
        "request header x-a exact '2': got '1'",
        "request header host absent: got 'shop'",
        "status: wanted 200, got none",
        "| GET http://shop/x",
        "no case reaches routes: shop/old",
        "3 case(s), 2 failed; 2 of 5 routes reached (40.0 %)",
    ):
        assert line in done.stdout, line
    assert "fine" not in done.stdout
    assert "40.0 % of the routes reached, wanted 90 %" in done.stderr


def test_runtime_is_the_key_of_the_only_fractions_that_hold_as_in_envoys_tool(tmp_path: Path) -> None:
    cases = """\
tests:
- test_name: without a key no fraction holds
  input: {authority: shop, path: /half, random_value: 3}
  validate: {cluster_name: a, path_rewrite: /v2/half}
- test_name: nor with another key
  input: {authority: shop, path: /half, random_value: 3, runtime: other.key}
  validate: {cluster_name: a, path_rewrite: /v2/half}
- test_name: with its key it is drawn
  input: {authority: shop, path: /half, random_value: 3, runtime: shop.half}
  validate: {cluster_name: a, path_rewrite: /half}
- test_name: and may fail
  input: {authority: shop, path: /half, random_value: 30, runtime: shop.half}
  validate: {cluster_name: b, path_rewrite: /v2/half}
"""
    done = route_test(tmp_path, cases)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "case, told",
    [
        ("{name: x, request: {url: http://shop/}}", "cases.yaml:2: error: route tests: tests[0].expect: is missing"),
        ("{name: x, request: {url: shop}, expect: {cluster: a}}", "'shop' is not an absolute URL"),
        ("{name: x, request: {url: http://shop/}, expect: {clutser: a}}", "expect.clutser: is nothing to expect"),
        ("{name: x, request: {url: http://shop/}, expect: {timeout: soon}}", "'soon' is no duration like 3s"),
        ("{name: x, request: {url: http://shop/}, random_value: -1, expect: {cluster: a}}", "no whole number from 0"),
        ("{name: x, request: {url: http://shop/}, expect: {request_headers: {a: 1}}}", "a: a text, null"),
        ("{test_name: x, input: {authority: shop}, validate: {cluster_name: a}}", "input.path: is missing"),
        (
            "{test_name: x, input: {authority: a, path: /, ssl: 1}, validate: {cluster_name: a}}",
            "1 is neither true nor",
        ),
        ("{test_name: x, input: {authority: a, path: /, runtime: 1}, validate: {cluster_name: a}}", "1 is not a text"),
        ("{test_name: x, input: {authority: shop, path: /}, validate: {}}", "validates nothing"),
        (
            "{test_name: x, input: {authority: a, path: /}, validate: {request_header_matches: [{nme: x}]}}",
            "validate.request_header_matches.0: no header matcher",
        ),
        ("just text", "a test is an object"),
    ],
)
def test_a_case_that_cannot_be_read_is_named_and_the_others_run(tmp_path: Path, case: str, told: str) -> None:
    good = "{name: good, request: {url: http://shop/}, expect: {virtual_host: shop}}"
    done = route_test(tmp_path, f"tests:\n- {case}\n- {good}\n")
    assert done.returncode == 1
    assert told in done.stderr
    assert "ok    good" in done.stdout


@pytest.mark.parametrize("cases", ["", "tests: []", "tests: [", "- 1\n---\n2"])
def test_a_file_without_cases_is_an_error(tmp_path: Path, cases: str) -> None:
    done = route_test(tmp_path, cases)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    assert "cases.yaml" in done.stderr


def test_reports_for_programs(tmp_path: Path) -> None:
    cases = CASES + '- {name: wrong, request: {url: http://shop/gone}, expect: {body: "there"}}\n'
    done = route_test(tmp_path, cases, "--json", "--junit", "report.xml")
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert [case["name"] for case in said["cases"] if not case["passed"]] == ["wrong"]
    assert said["cases"][-1]["failures"] == ["body: wanted 'there', got 'gone'"]
    assert said["cases"][-1]["explanation"]["route"] == "shop/gone"
    assert said["coverage"] == {"percent": 100.0, "routes": 5, "reached": 5, "missing": []}
    suite = ElementTree.parse(tmp_path / "report.xml").getroot()  # noqa: S314  our own report
    assert (suite.get("tests"), suite.get("failures")) == ("9", "1")
    assert [case.get("name") for case in suite if len(case)] == ["wrong"]
