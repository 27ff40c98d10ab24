"""The alerting rules that are shipped: valid, about metrics there are, and each fires when it should and not before."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshlib.telemetry.metrics import catalogue
from parts.registry import path_of

pytestmark = pytest.mark.needs("prometheus")
TEXT = files("meshlib.telemetry").joinpath("alerts.yml").read_text("utf-8")
RULES = {rule["alert"]: rule for group in yaml.safe_load(TEXT)["groups"] for rule in group["rules"]}
SHOP = 'job="shop", instance="a:1"'
PAYMENTS = f'{SHOP}, envoy_cluster_name="payments"'
MINUTES = 30


def rising(per_minute: float) -> str:
    return f"0+{per_minute:g}x{MINUTES}"


def level(value: float) -> str:
    return f"{value:g}x{MINUTES}"


def of_cluster(name: str, values: str, labels: str = "") -> dict[str, str]:
    return {"series": f"envoy_cluster_{name}{{{PAYMENTS}{labels}}}", "values": values}


def of_process(name: str, values: str, labels: str = "") -> dict[str, str]:
    return {"series": f"{name}{{{SHOP}{labels}}}", "values": values}


FIVE = ', envoy_response_code_class="5"'
BREAKER = ', meshlib_circuit_breaker="payments", meshlib_state="open"'
# alert -> series on which it fires, and series that are as bad as they may be
CASES: dict[str, tuple[list[dict[str, str]], list[dict[str, str]]]] = {
    "MeshNotReady": ([of_process("meshlib_ready", level(0))], [of_process("meshlib_ready", level(1))]),
    "MeshControlPlaneDisconnected": (
        [of_process("envoy_control_plane_connected_state", level(0), f', meshlib_xds_server="{n}"') for n in "ab"],
        [
            of_process("envoy_control_plane_connected_state", level(value), f', meshlib_xds_server="{value}"')
            for value in (0, 1)
        ],
    ),
    "MeshConfigurationRejected": (
        [of_process("meshlib_xds_resource_updates_invalid_total", rising(1))],
        [of_process("meshlib_xds_resource_updates_invalid_total", level(7))],
    ),
    "MeshConfigurationErrors": (
        [of_process("meshlib_config_issues", level(1), ', meshlib_severity="error"')],
        [of_process("meshlib_config_issues", level(9), ', meshlib_severity="degraded"')],
    ),
    "MeshConsulStale": (
        [of_process("meshlib_consul_stale_seconds", level(301))],
        [of_process("meshlib_consul_stale_seconds", level(299))],
    ),
    "MeshClusterDown": (
        [of_cluster("membership_healthy", level(0)), of_cluster("membership_total", level(3))],
        [of_cluster("membership_healthy", level(0)), of_cluster("membership_total", level(0))],
    ),
    "MeshPanic": (
        [of_cluster("lb_healthy_panic", rising(5))],
        [of_cluster("lb_healthy_panic", level(500))],
    ),
    "MeshManyEndpointsEjected": (
        [of_cluster("outlier_detection_ejections_active", level(3)), of_cluster("membership_total", level(10))],
        [of_cluster("outlier_detection_ejections_active", level(2)), of_cluster("membership_total", level(10))],
    ),
    "MeshEjectionsWithheld": (
        [of_cluster("outlier_detection_ejections_overflow", rising(1))],
        [of_cluster("outlier_detection_ejections_overflow", level(1))],
    ),
    "MeshCircuitBreakerOpen": (
        [of_process("meshlib_circuit_breaker_state", level(2), ', envoy_cluster_name="payments"')],
        [of_process("meshlib_circuit_breaker_state", level(1), ', envoy_cluster_name="payments"')],
    ),
    "MeshCircuitBreakerFlapping": (
        [of_process("meshlib_circuit_breaker_transitions_total", rising(1), BREAKER)],
        [of_process("meshlib_circuit_breaker_transitions_total", rising(0.2), BREAKER)],
    ),
    "MeshRetryStorm": (
        [of_cluster("upstream_rq_retry", rising(120)), of_cluster("upstream_rq_total", rising(600))],
        [of_cluster("upstream_rq_retry", rising(60)), of_cluster("upstream_rq_total", rising(600))],
    ),
    "MeshRetriesRefused": (
        [of_cluster("upstream_rq_retry_overflow", rising(1))],
        [of_cluster("upstream_rq_retry_overflow", level(100))],
    ),
    "MeshOverflow": (
        [of_cluster("upstream_rq_active_overflow", level(0)), of_cluster("upstream_rq_pending_overflow", rising(1))],
        [of_cluster("upstream_rq_active_overflow", level(9)), of_cluster("upstream_rq_pending_overflow", level(9))],
    ),
    "MeshLoadShed": (
        [of_process("meshlib_load_shed_total", rising(1), ', meshlib_shed="adaptive"')],
        [of_process("meshlib_load_shed_total", level(90), ', meshlib_shed="adaptive"')],
    ),
    "MeshUpstreamErrors": (
        [of_cluster("upstream_rq_xx", rising(60), FIVE), of_cluster("upstream_rq_completed", rising(600))],
        [of_cluster("upstream_rq_xx", rising(24), FIVE), of_cluster("upstream_rq_completed", rising(600))],
    ),
    "MeshTimeouts": (
        [
            of_cluster("upstream_rq_timeout", rising(20)),
            of_cluster("upstream_rq_per_try_timeout", rising(20)),
            of_cluster("upstream_rq_total", rising(600)),
        ],
        [
            of_cluster("upstream_rq_timeout", rising(30)),
            of_cluster("upstream_rq_per_try_timeout", rising(30)),
            of_cluster("upstream_rq_total", rising(30)),  # half a request a second says little
        ],
    ),
}


def promtool(*arguments: Any) -> subprocess.CompletedProcess[str]:
    program = Path(path_of("prometheus")).with_name("promtool")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)


def fires(alert: str, series: list[dict[str, str]], at: str, folder: Path) -> bool:
    """Whether promtool, on these series, has the alert firing at that time."""
    (folder / "alerts.yml").write_text(TEXT)
    test = {
        "rule_files": ["alerts.yml"],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "alert_rule_test": [{"alertname": alert, "eval_time": at, "exp_alerts": []}],
            }
        ],
    }
    (folder / "test.yml").write_text(json.dumps(test))
    said = promtool("test", "rules", folder / "test.yml")
    assert said.returncode in (0, 1), said.stderr
    assert said.returncode == 0 or f"alertname: {alert}" in said.stdout + said.stderr, said.stdout + said.stderr
    return said.returncode == 1


def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text(TEXT)
    said = promtool("check", "rules", tmp_path / "alerts.yml")
    assert said.returncode == 0, said.stdout + said.stderr
    assert f"{len(RULES)} rules found" in said.stdout


def test_they_are_about_metrics_there_are() -> None:
    known = {metric.prometheus for metric in catalogue.ALL}
    for name, rule in RULES.items():
        used = set(re.findall(r"\b(?:envoy|meshlib)_[a-z0-9_]+", rule["expr"]))
        assert used, name
        labels = {"meshlib_severity", "meshlib_state", "envoy_cluster_name", "envoy_response_code_class"}
        assert used - labels <= known, name


def test_every_rule_has_a_case() -> None:
    assert set(CASES) == set(RULES)
    for rule in RULES.values():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description"}


@pytest.mark.parametrize("alert", CASES)
def test_it_fires_when_it_should_and_not_otherwise(alert: str, tmp_path: Path) -> None:
    bad, good = CASES[alert]
    assert fires(alert, bad, "25m", tmp_path)
    assert not fires(alert, good, "25m", tmp_path)


def test_the_command_prints_them() -> None:
    said = subprocess.run([sys.executable, "-m", "meshlib", "alerts"], capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, TEXT)
