"""`meshlib explain` as a process: output for people and programs, requests by the thousand, exit codes."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from meshlib.explain import Explainer, Explanation

ROOT = Path(__file__).resolve().parents[3]
MESHLIB = [sys.executable, "-c", "import sys; from meshlib.cli import main; sys.exit(main())"]
CONFIGURATION = """\
static_resources:
  clusters:
  - &stable
    name: stable
    load_assignment:
      cluster_name: stable
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8001}}}
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8002}}}
  - {<<: *stable, name: canary}
  listeners:
  - name: out
    address: {socket_address: {address: 0.0.0.0, port_value: 80}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: out
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            name: routes
            virtual_hosts:
            - name: payments
              domains: [payments]
              routes:
              - name: canary
                match: {prefix: /, headers: [{name: x-canary, string_match: {exact: "1"}}]}
                route: {cluster: canary, prefix_rewrite: /v2/, retry_policy: {retry_on: 5xx, num_retries: 2}}
              - {name: old, match: {prefix: /old}, redirect: {path_redirect: /new}}
              - name: split
                match: {prefix: /}
                route: {weighted_clusters: {clusters: [{name: stable, weight: 90}, {name: canary, weight: 10}]}}
"""


def meshlib(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [*MESHLIB, "explain", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ, input=stdin)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "mesh.yaml"
    path.write_text(CONFIGURATION)
    return path


def test_the_path_is_printed_for_people(conf: Path) -> None:
    done = meshlib("GET", "http://payments/charge", "-H", "x-canary: 1", "--config", conf)
    assert (done.returncode, done.stderr) == (0, "")
    words = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for expected in (
        "GET http://payments/charge",
        "virtual host payments",
        "route [0] canary: matched",
        "cluster canary",
        "request GET /v2/charge",
        "x-envoy-original-path: /charge",
        "timeouts route 15 s, idle 300 s, connect 5 s",
        "retries 2 on 5xx, back-off 0.025 to 0.25 s",
    ):
        assert expected in words, done.stdout
    assert sum("<- first attempt" in line for line in words) == 1


def test_why_not_and_weights_are_printed(conf: Path) -> None:
    done = meshlib("GET", "http://payments/charge", "--config", conf, "--seed", "1")
    words = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert any(line.startswith("route [0] canary: no, ") and "x-canary" in line for line in words)
    assert any(line.startswith("weight 90 stable") for line in words)
    assert sum("<- drawn" in line for line in words) == 1


@pytest.mark.parametrize(
    "url,line",
    [
        ("http://payments/old", "redirect 301 to http://payments/new"),
        ("http://elsewhere/", "passes through no virtual"),
    ],
)
def test_what_has_no_upstream_is_said(conf: Path, url: str, line: str) -> None:
    done = meshlib("GET", url, "--config", conf)
    assert line in " ".join(done.stdout.split())
    assert done.returncode == 0


def test_json_is_the_documented_object(conf: Path) -> None:
    done = meshlib("GET", "http://payments/charge", "-H", "x-canary:1", "--json", "--config", conf)
    found = json.loads(done.stdout)
    assert list(found) == [each.name for each in dataclasses.fields(Explanation)]
    expected = Explainer.from_files(conf, seed=0).explain("GET", "http://payments/charge", {"x-canary": "1"})
    assert found == json.loads(json.dumps(expected.to_dict()))


def test_requests_by_the_thousand_in_one_process(conf: Path, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = [
        {"method": "POST", "url": f"http://payments/{number}", "headers": {"x-canary": str(number % 2)}}
        for number in range(5_000)
    ]
    file = tmp_path / "requests.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in asked))
    began = time.perf_counter()
    done = meshlib("--requests", file, "--config", conf, "--seed", "4")
    took = time.perf_counter() - began
    again = meshlib("--requests", file, "--config", conf, "--seed", "4")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["url"] for each in answers] == [each["url"] for each in asked]
    assert done.stdout == again.stdout
    assert {each["cluster"] for each in answers[1::2]} == {"canary"}
    drawn = sum(each["cluster"] == "canary" for each in answers[0::2])
    assert 175 < drawn < 325  # 10 % of 2 500, five standard deviations
    assert took < 20, f"{len(asked) / took:.0f} a second"  # about 9 000 a second on an idle machine


def test_lines_that_are_no_requests_are_answered_by_their_number(conf: Path) -> None:
    lines = [
        '{"url": "http://payments/"}',
        "not json",
        "",
        '{"url": 7}',
        '{"url": "payments"}',
        '{"url": "http://payments/", "header": {}}',
        '{"url": "http://payments/", "headers": {"x": 1}}',
        "[" * 100_000,
        '{"url": "http://payments/", "headers": [["x-canary", "1"]]}',
    ]
    done = meshlib("--requests", "-", "--config", conf, stdin="\n".join(lines))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [each.get("line") for each in answers] == [None, 2, 4, 5, 6, 7, 8, None]
    assert all(each["error"] for each in answers if "line" in each)
    assert (answers[0]["method"], answers[-1]["cluster"]) == ("GET", "canary")


def test_configuration_with_errors_is_not_answered_by(conf: Path) -> None:
    conf.write_text(CONFIGURATION.replace("prefix_rewrite: /v2/", "prefix_rewrit: /v2/"))
    done = meshlib("GET", "http://payments/", "--config", conf)
    assert (done.returncode, done.stdout) == (1, "")
    assert "mesh.yaml:" in done.stderr
    assert "prefix_rewrit" in done.stderr


def test_what_only_compiling_refuses_is_a_configuration_error(conf: Path) -> None:
    header = "request_headers_to_add: [{header: {key: x-a, value: '%REQ(a?b?c)%'}}]"
    conf.write_text(CONFIGURATION.replace("{name: old,", f"{{name: old, {header},"))
    done = meshlib("GET", "http://payments/", "--config", conf)
    assert (done.returncode, done.stdout) == (1, "")
    assert "RouteConfiguration routes: virtual_hosts[0].routes[1]" in done.stderr
    assert "%REQ(a?b?c)%" in done.stderr


def test_degraded_configuration_is_told_and_answered_by(conf: Path) -> None:
    conf.write_text(
        CONFIGURATION.replace(
            "name: stable\n    load",
            "name: stable\n    upstream_bind_config: {source_address: {address: 127.0.0.1, port_value: 0}}\n    load",
        )
    )
    done = meshlib("GET", "http://payments/", "--config", conf, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["virtual_host"] == "payments"
    assert "degraded" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("GET",),
        ("GET", "payments"),
        ("GET", "http://payments/", "-H", "no colon"),
        ("GET", "http://payments/", "--requests", "x.jsonl"),
        ("--requests", "no-such-file.jsonl"),
    ],
)
def test_called_wrongly(conf: Path, arguments: tuple[str, ...]) -> None:
    done = meshlib(*arguments, "--config", conf)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


def test_without_a_configuration_it_is_called_wrongly() -> None:
    assert meshlib("GET", "http://payments/").returncode == 2
