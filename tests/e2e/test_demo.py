"""`make demo`'s program: it keeps its promises, says which broke, draws on a terminal, and leaves nothing behind."""

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from examples.demo.calls import percentile, within_chance
from examples.demo.config_folder import TEMPLATE, ConfigFolder, endpoints
from meshlib.sources.files.loader import load

ROOT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, "-m", "examples.demo", "--pace", "0.2"]
PROMISES = 24
FIGURES = ("calls", "failed", "retried", "change to effect", "calls without a control plane", "certificates issued")
ID = r"spiffe://demo\.local/ns/shop/sa/"
SECURED = (  # what mutual TLS and gRPC are held to, with the evidence
    rf"a service knows its caller: stable-\d is called by {ID}client, receipts-\d is called by {ID}payments, .*",
    r"a caller without a certificate is refused: 0 of 7 instances let it in; with its certificate 7 do",
    r"every certificate is replaced and fails no call: 24 certificates, 2 changes of trust, \d+ calls .*, 0 failed",
    r"a client of the removed authority is refused: before, 7 of 7 .*; now 0 on a connection it has, 0 on a new one",
    r"trace, request id and deadline travel from HTTP into gRPC: trace .* → stable-\d \(.*\) → receipts-\d \(.*\)",
    r"kill -9 of a gRPC instance fails no call: [1-9]\d* calls meanwhile, [1-9]\d* retried, 0 failed",
    r"no gRPC call failed, .*: [1-9]\d* receipts, [1-9]\d* streams of 10 lines \(.*\), 0 failed",
)


def run(*options: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*DEMO, *options], cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert done.stderr == ""
    return done


@pytest.mark.timeout(180)
def test_it_keeps_every_promise_and_sums_up() -> None:
    done = run()
    assert done.returncode == 0, done.stdout
    assert f"all {PROMISES} promises kept" in done.stdout
    assert "BROKEN" not in done.stdout
    for figure in FIGURES:
        assert re.search(rf"^ +{figure} +\S*\d", done.stdout, re.MULTILINE), f"no figure {figure!r} in {done.stdout}"
    assert re.search(r"^ +failed +0 *$", done.stdout, re.MULTILINE)
    for promise in SECURED:
        assert re.search(rf"^  kept +{promise}$", done.stdout, re.MULTILINE), promise


@pytest.mark.timeout(180)
def test_a_broken_promise_fails_it_and_is_named() -> None:
    done = run("--without-retries")
    assert done.returncode == 1, done.stdout
    assert re.search(r"BROKEN +no call failed: [1-9]\d* of \d+", done.stdout)
    last = done.stdout.strip().splitlines()[-1]
    assert re.match(r"\d+ broken: .*retries hide a failing instance", last)


class Terminal:
    """The demo in a pseudo-terminal, and in a process group of its own, as a shell starts it."""

    def __init__(self) -> None:
        self._fd, theirs = pty.openpty()
        env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "140", "LINES": "45"}
        self.process = subprocess.Popen(
            DEMO, cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.text = ""

    def read_until(self, pattern: str) -> None:
        while not re.search(pattern, self.text):
            try:
                self.text += os.read(self._fd, 65536).decode(errors="replace")
            except OSError:  # the other end has closed
                pytest.fail(f"ended before {pattern!r}: {self.text[-3000:]}")

    def press_ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)  # what the terminal's driver does: all of the group hear it

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
        os.close(self._fd)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    started = Terminal()
    yield started
    started.close()


@pytest.mark.timeout(120)
def test_on_a_terminal_it_draws_and_ctrl_c_leaves_no_process(terminal: Terminal) -> None:
    terminal.read_until("share of charges")
    terminal.read_until("✓ 10 % to the canary")
    children = psutil.Process(terminal.process.pid).children(recursive=True)
    assert len(children) == 8  # a control plane and seven instances
    terminal.press_ctrl_c()
    terminal.read_until("interrupted; every process has been stopped")
    assert terminal.process.wait(30) == 130
    assert [child for child in children if child.is_running()] == []


def test_the_configuration_is_valid_and_every_marker_can_be_edited(tmp_path: Path) -> None:
    assert [issue for issue in load([TEMPLATE]).issues if issue.severity == "error"] == []
    conf = ConfigFolder(tmp_path / "conf")
    markers = re.findall(r"  # ([a-z ]+)$", conf.traffic.read_text(), re.MULTILINE)
    assert {"revision", "retries", "burst", "stable weight", "canary weight", "hints endpoints"} <= set(markers)
    assert conf.edit(canary_weight=7, hints_endpoints=endpoints([1, 2])) == 1
    assert "weight: 7  # canary weight" in conf.traffic.read_text()
    assert 'value: "1"  # revision' in conf.traffic.read_text()
    assert [issue for issue in load([conf.folder]).issues if issue.severity == "error"] == []
    with pytest.raises(ValueError, match="'# no such thing'"):
        conf.edit(no_such_thing=1)


def test_what_chance_allows_and_what_not() -> None:
    assert within_chance(100, 1000, 0.1)
    assert not within_chance(50, 1000, 0.1)
    assert within_chance(10, 10, 1.0)
    assert not within_chance(9, 10, 1.0)
    assert not within_chance(0, 0, 0.1)


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentile([], 0.5) == 0.0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile(range(100), 0.99) == 99
