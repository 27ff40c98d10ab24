"""`meshlib check --traffic` as a process: shares as written, shares that are not, and files that cannot be used."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MESHLIB = [sys.executable, "-c", "import sys; from meshlib.cli import main; sys.exit(main())"]
CONFIGURATION = """\
"@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
name: routes
virtual_hosts:
- name: shop
  domains: [shop]
  routes:
  - name: canary
    match: {prefix: /}
    route: {weighted_clusters: {clusters: [{name: a, weight: 95}, {name: b, weight: 5}]}}
---
"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
name: a
---
"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
name: b
"""


LANES = """\
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payments}
spec:
  hosts: [payments]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 10.0.0.1, ports: {http: 8080}}]
---
apiVersion: meshlib.dev/v1
kind: LaneGroup
metadata: {name: shop}
spec:
  services: [payments]
  lanes:
  - {name: beta, match: [{headers: {x-user-tag: {exact: beta}}}]}
  - {name: odd, match: [{headers: {x-user-tag: {regex: "o.d"}}}]}
"""


def check(folder: Path, *options: str, observed: str | None = None, more: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "conf").mkdir(exist_ok=True)
    (folder / "conf" / "mesh.yaml").write_text(CONFIGURATION + more)
    if observed is not None:
        (folder / "counts.yaml").write_text(observed)
        options = (*options, "--observed", "counts.yaml")
    return subprocess.run(
        [*MESHLIB, "check", "conf", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_shares_are_as_written(tmp_path: Path) -> None:
    done = check(tmp_path, "--traffic", "20000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok    shop/canary: chi-squared" in done.stdout
    assert "b: wanted   5.00 %, got" in done.stdout
    assert "1 place(s) share traffic, 0 not as written" in done.stdout
    again = check(tmp_path, "--traffic", "20000", "--json")
    (split,) = json.loads(again.stdout)
    assert split["ok"]
    assert sum(split["counts"].values()) == 20_000


@pytest.mark.parametrize("requests", ["0", "-5", "many"])
def test_no_requests_are_no_test(tmp_path: Path, requests: str) -> None:
    done = check(tmp_path, f"--traffic={requests}")
    assert done.returncode == 2, done.stdout
    assert "argument --traffic" in done.stderr


def test_a_lane_by_a_tag_of_the_user_is_entered_by_the_tag_alone(tmp_path: Path) -> None:
    done = check(tmp_path, "--traffic", "2000", more=LANES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok    lane shop/beta: chi-squared 0.00, 1 degree(s) of freedom, p 1" in done.stdout
    assert "        beta: wanted  50.00 %, got  50.00 % (1000)" in done.stdout
    assert "-     lane shop/odd: not drawn: the match is not simple" in done.stdout
    assert "3 place(s) share traffic, 0 not as written, 1 not tested" in done.stdout
    splits = json.loads(check(tmp_path, "--traffic", "2000", "--json", more=LANES).stdout)
    assert [split["untested"] for split in splits] == [None, None, "not drawn: the match is not simple"]


def test_counts_that_deviate_are_found(tmp_path: Path) -> None:
    assert check(tmp_path, observed="shop/canary: {a: 9480, b: 520}").returncode == 0
    done = check(tmp_path, observed="shop/canary: {a: 9300, b: 700}")
    assert done.returncode == 1
    assert "OFF   shop/canary" in done.stdout


@pytest.mark.parametrize(
    "observed, told",
    [
        ("shop/cnary: {a: 1}", "nothing shares traffic under the name 'shop/cnary'"),
        ("[1, 2]", "an object {route: {cluster: count}} is wanted"),
        ("shop/canary: {a: -1}", "the count of a is -1, a whole number from 0 is wanted"),
        ("shop/canary: {a: ", "counts.yaml"),
    ],
)
def test_counts_that_cannot_be_used_are_refused(tmp_path: Path, observed: str, told: str) -> None:
    done = check(tmp_path, observed=observed)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
