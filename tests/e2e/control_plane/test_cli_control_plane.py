"""`meshlib control-plane` and `meshlib check` as processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from parts.process import Process

ROOT = Path(__file__).resolve().parents[3]
MESHLIB = [sys.executable, "-c", "import sys; from meshlib.cli import main; sys.exit(main())"]
CLUSTER = """\
name: payments
connect_timeout: 1s
load_assignment:
  cluster_name: payments
  endpoints:
  - lb_endpoints:
    - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8001}}}
"""


def meshlib(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([*MESHLIB, *map(str, arguments)], capture_output=True, text=True, timeout=60, env=environ)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "payments.yaml").write_text(CLUSTER)
    return folder


def start(conf: Path, log: Path, *arguments: str) -> Process:
    argv = [*MESHLIB, "control-plane", "--dir", str(conf), "--port", "0", *arguments]
    return Process(argv, log, env={"PYTHONPATH": str(ROOT)})


def test_it_serves_refuses_bad_edits_and_stops_on_sigterm(conf: Path, tmp_path: Path) -> None:
    process = start(conf, tmp_path / "log")
    try:
        process.wait_line(r"version 1: 1 Cluster")
        process.wait_line(r"serving ADS on 127\.0\.0\.1:\d+")
        (conf / "payments.yaml").write_text(CLUSTER.replace("connect_timeout: 1s", "connect_timeout: 1"))
        process.wait_line(r"payments\.yaml:2: error: Cluster payments: connect_timeout: 1 is not a duration")
        process.wait_line(r"refused: version 1 stays in force")
        (conf / "payments.yaml").write_text(CLUSTER.replace("1s", "2s"))
        process.wait_line(r"version 2: 1 Cluster")
        os.kill(process.pid, signal.SIGTERM)
        process.wait_line(r"stopped")
    finally:
        process.stop()


def test_it_tells_of_subscribers(conf: Path, tmp_path: Path) -> None:
    from meshlib.sources.xds.bootstrap import Bootstrap, XdsServer
    from meshlib.sources.xds.node import Node
    from meshlib.sources.xds.source import XdsSource

    class Nowhere:
        def publish(self, snapshot: object) -> None: ...
        def report(self, issues: object) -> None: ...

    process = start(conf, tmp_path / "log")
    try:
        address = process.wait_line(r"serving ADS on (\S+)")[1]
        node = Node("sidecar~127.0.0.1~app.default~default.svc.cluster.local")
        source = XdsSource(Bootstrap((XdsServer(address),), node))
        source.start(Nowhere())
        process.wait_line(r"sidecar~\S+ connected from \S+ \(delta\)")
        process.wait_line(r"sidecar~\S+ took Cluster version 1")
        source.close()
        process.wait_line(r"sidecar~\S+ disconnected")
    finally:
        process.stop()


def test_errors_at_the_start_are_an_exit_code(conf: Path) -> None:
    (conf / "payments.yaml").write_text("name: [")
    answer = meshlib("control-plane", "--dir", conf, "--port", "0")
    assert answer.returncode == 1
    assert "payments.yaml:" in answer.stderr
    assert "nothing is served" in answer.stderr


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["--tls-cert", "x.pem"], 2, "go together"),
        (["--tls-cert", "no.pem", "--tls-key", "no.key"], 1, "No such file"),
        (["--host", "203.0.113.1"], 1, "cannot serve ADS"),
    ],
)
def test_what_cannot_be_served_says_why(conf: Path, arguments: list[str], code: int, words: str) -> None:
    answer = meshlib("control-plane", "--dir", conf, *arguments)
    assert (answer.returncode, words in answer.stderr) == (code, True), answer.stderr


def test_check_is_silent_about_what_is_right(conf: Path) -> None:
    answer = meshlib("check", conf)
    assert answer.returncode == 0
    assert answer.stdout == "1 file(s): 1 Cluster; 0 error(s), 0 degraded\n"


def test_check_lists_mistakes_as_editors_read_them(conf: Path) -> None:
    (conf / "payments.yaml").write_text(CLUSTER.replace("connect_timeout", "conect_timeout"))
    answer = meshlib("check", conf)
    assert answer.returncode == 1
    assert answer.stdout.splitlines()[0] == (
        f"{conf / 'payments.yaml'}:2: error: Cluster payments: conect_timeout: "
        "Cluster has no field 'conect_timeout' (did you mean 'connect_timeout'?)"
    )


def test_check_for_programs(conf: Path) -> None:
    (conf / "payments.yaml").write_text(CLUSTER + "type: EDSS\n")
    answer = meshlib("check", "--json", conf)
    report = json.loads(answer.stdout)
    assert (answer.returncode, report["ok"], report["errors"]) == (1, False, 1)
    assert {key: report["issues"][0][key] for key in ("line", "path", "severity")} == {
        "line": 8,
        "path": "type",
        "severity": "error",
    }


def test_check_strict_refuses_degraded(conf: Path) -> None:
    (conf / "secret.yaml").write_text(
        '"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\nname: a\n'
    )
    assert meshlib("check", conf).returncode == 0
    assert meshlib("check", "--strict", conf).returncode == 1


@pytest.mark.parametrize("arguments, words", [([], "COMMAND"), (["chek"], "invalid choice"), (["check"], "FILE")])
def test_wrong_calls_are_exit_code_2(arguments: list[str], words: str) -> None:
    answer = meshlib(*arguments)
    assert answer.returncode == 2
    assert words in answer.stderr


def test_help_teaches_and_needs_no_optional_part(tmp_path: Path) -> None:
    blocker = tmp_path / "sitecustomize.py"
    blocker.write_text(
        "import sys\nfor name in ('yaml', 'grpc', 'google', 'rich', 'watchfiles'):\n    sys.modules[name] = None\n"
    )
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    for arguments in (["--help"], ["check", "--help"], ["control-plane", "--help"]):
        answer = subprocess.run([*MESHLIB, *arguments], capture_output=True, text=True, timeout=60, env=environ)
        assert answer.returncode == 0, answer.stderr
        assert "examples:" in answer.stdout
    answer = subprocess.run([*MESHLIB, "check", "x"], capture_output=True, text=True, timeout=60, env=environ)
    assert answer.returncode == 2
    assert "pip install 'meshlib[" in answer.stderr
