"""The admin socket of a live process: explanations by the state of now, for its own user only, whatever is asked."""

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.admin.socket import AdminSocket
from meshlib.cli.live import LiveError, ask
from meshlib.sources.static import static_snapshot
from parts.fast_backend import FastBackend

ROOT = Path(__file__).resolve().parents[3]
MESHLIB = [sys.executable, "-c", "import sys; from meshlib.cli import main; sys.exit(main())"]


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short path: a Unix socket's has 107 bytes."""
    return tmp_path_factory.mktemp("adm")


def explain(path: Path, **query: str) -> dict[str, Any]:
    target = "&".join(f"{name}={value}" for name, value in {"url": "http://payments/", **query}.items())
    said: dict[str, Any] = json.loads(ask(str(path), f"/explain?{target}"))
    return said


def endpoints(said: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["address"]: entry for entry in said["balancing"]["priorities"][0]["endpoints"]}


def says_true(program: str, folder: Path) -> None:
    """A program of its own that prints True, with the folder as its argument."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "True\n", done.stderr


def test_a_live_process_explains_by_the_state_of_its_endpoints(
    folder: Path, fast_backend: Callable[..., FastBackend]
) -> None:
    good, other = fast_backend("good"), fast_backend("other")
    addresses = [good.address, other.address]
    with Mesh.static({"payments": addresses}, admin=folder / "{pid}.sock", seed=1) as mesh:
        path = folder / f"{os.getpid()}.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        before = explain(path)
        assert before["cluster"] == "payments"
        assert before["cluster_state"] == {"requests": 0, "ejected": 0, "breaker": None}
        assert sorted(endpoints(before)) == sorted(addresses)

        state = mesh.runtime.state.cluster("payments")
        held = object()
        state.endpoint(good.address).live[held] = None
        state.default.requests[held] = None
        said = explain(path)
        assert endpoints(said)[good.address]["active"] == 1
        assert said["cluster_state"]["requests"] == 1
        text = ask(str(path), "/explain?url=http://payments/&format=text")
        assert "1 active" in text
        assert "payments (1 requests)" in text
    assert not path.exists()


def test_what_is_explained_takes_no_turn_of_a_call(folder: Path, fast_backend: Callable[..., FastBackend]) -> None:
    addresses = [fast_backend(name).address for name in "abc"]
    with Mesh.static({"payments": addresses}, admin=folder / "s", seed=1) as mesh:
        order = []
        with mesh.http.client("payments") as client:
            for _ in range(9):
                order.append(client.get("/").extensions["meshlib"].endpoint)
                explain(folder / "s")
        assert order[:3] * 3 == order  # round robin goes on as if nobody had asked
        assert sorted(order[:3]) == sorted(addresses)


def test_a_new_plan_is_explained_at_once(folder: Path) -> None:
    with Mesh.static({"payments": ["10.0.0.1:1"]}, admin=folder / "s") as mesh:
        assert list(endpoints(explain(folder / "s"))) == ["10.0.0.1:1"]
        mesh.source.replace(static_snapshot({"payments": ["10.0.0.2:2"]}))  # type: ignore[attr-defined]
        assert list(endpoints(explain(folder / "s"))) == ["10.0.0.2:2"]


@pytest.mark.parametrize(
    "target, told",
    [
        ("/explain", "url=http://service/path is wanted"),
        ("/explain?url=payments", "not an absolute URL"),
        ("/explain?url=http://payments/&header=x", "'x' is not name:value"),
        ("/explain?url=http://payments/&colour=red", "unknown parameter 'colour'"),
        ("/config", "no page /config; there are /explain"),
    ],
)
def test_what_cannot_be_answered_is_said(folder: Path, target: str, told: str) -> None:
    with (
        Mesh.static({"payments": ["10.0.0.1:1"]}, admin=folder / "s"),
        pytest.raises(LiveError, match=told.replace("?", r"\?")),
    ):
        ask(str(folder / "s"), target)


def test_garbage_and_silence_disturb_nobody(folder: Path) -> None:
    with Mesh.static({"payments": ["10.0.0.1:1"]}, admin=folder / "s"):
        silent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        silent.connect(str(folder / "s"))
        rude = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        rude.connect(str(folder / "s"))
        rude.sendall(b"\x00\xff" * 500 + b"\r\n\r\n")
        assert explain(folder / "s")["cluster"] == "payments"
        silent.close()
        rude.close()


def raw(path: Path, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize(
    "request_line, status",
    [
        (b"GET http://[::1 HTTP/1.0\r\n\r\n", b"404"),
        (b"GET /../../etc/passwd HTTP/1.0\r\n\r\n", b"404"),
        (b"GET /explain?" + b"header=a:b&" * 5_000 + b"url=http://payments/ HTTP/1.0\r\n\r\n", b"200"),
        (b"POST /explain HTTP/1.0\r\ncontent-length: \xb2\r\n\r\n", b"413"),
        (b"POST /explain HTTP/1.0\r\ncontent-length: " + b"9" * 5_000 + b"\r\n\r\n", b"413"),
        (b"POST /explain HTTP/1.0\r\ncontent-length: -1\r\n\r\n", b"413"),
        (b"POST /explain HTTP/1.0\r\n\r\n", b"413"),
    ],
)
def test_whatever_is_asked_has_an_answer(
    folder: Path,
    request_line: bytes,
    status: bytes,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with Mesh.static({"payments": ["10.0.0.1:1"]}, admin=folder / "s"):
        answer = raw(folder / "s", request_line)
    assert answer.split(b" ")[1] == status
    assert (caplog.text, capfd.readouterr().err) == ("", "")


def test_who_does_not_wait_for_the_answer_is_no_error(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    written = threading.Event()

    def page(query: object, body: str) -> str:
        written.set()
        return "x" * 50_000_000  # more than any socket holds

    admin = AdminSocket(folder / "s", {"/": page})
    admin.open()
    try:
        for _ in range(2):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.connect(str(folder / "s"))
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert client.recv(10)
        until_alone()
    finally:
        admin.close()
    assert capfd.readouterr().err == ""


def until_alone() -> None:
    """The threads that answer have ended."""
    deadline = time.monotonic() + 15
    while any("process_request_thread" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "an answer goes on"
        time.sleep(0.01)


def test_opening_it_leaves_the_permissions_of_other_files_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[int] = []
    monkeypatch.setattr(os, "umask", masks.append)
    admin = AdminSocket(folder / "s", {})
    admin.open()
    try:
        assert stat.S_IMODE((folder / "s").stat().st_mode) == 0o600
    finally:
        admin.close()
    assert masks == []


def test_a_socket_left_behind_is_replaced_and_one_in_use_is_not(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(folder / "s"))
    left.close()
    with Mesh.static({"payments": ["10.0.0.1:1"]}, admin=folder / "s"):
        assert explain(folder / "s")["cluster"] == "payments"
        with Mesh.static({"other": ["10.0.0.1:1"]}, admin=folder / "s"):
            assert "belongs to a running process: put {pid} into the name" in caplog.text
            assert explain(folder / "s")["cluster"] == "payments"
        assert explain(folder / "s")["cluster"] == "payments"


@pytest.mark.parametrize("path", ["/nonexistent-folder/x.sock", "/tmp/" + "x" * 200])  # noqa: S108  not made
def test_a_path_that_cannot_be_is_logged_and_calls_go_on(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with Mesh.static({"payments": ["10.0.0.1:1"]}, admin=path) as mesh:
        assert "no admin socket" in caplog.text
        assert mesh.ready


def test_a_forked_child_has_a_socket_of_its_own(folder: Path) -> None:
    program = """
import os, sys
from meshlib import Mesh
from meshlib.cli.live import ask
with Mesh.static({"payments": ["10.0.0.1:1"]}, admin=sys.argv[1] + "/{pid}.sock") as mesh:
    mine = f"{sys.argv[1]}/{os.getpid()}.sock"
    child = os.fork()
    if not child:
        mesh.start()
        assert '"payments"' in ask(f"{sys.argv[1]}/{os.getpid()}.sock", "/explain?url=http://payments/")
        mesh.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert '"payments"' in ask(mine, "/explain?url=http://payments/")
    print(sorted(os.listdir(sys.argv[1])) == [f"{os.getpid()}.sock"])
"""
    says_true(program, folder)


def test_a_forked_child_does_not_keep_its_parents_socket_alive(folder: Path) -> None:
    program = """
import os, signal, sys
from meshlib import Mesh
path, (ready, tell), (wait, go) = sys.argv[1] + "/s", os.pipe(), os.pipe()
parent = os.fork()
if not parent:
    mesh = Mesh.static({"payments": ["10.0.0.1:1"]}, admin=path).start()
    if not os.fork():
        os.write(tell, b"x")
        os.read(wait, 1)
        os._exit(0)
    signal.pause()
os.read(ready, 1)
os.kill(parent, signal.SIGKILL)
os.waitpid(parent, 0)
with Mesh.static({"payments": ["10.0.0.1:1"]}, admin=path) as mesh:
    print(mesh._admin is not None)
os.write(go, b"x")
"""
    says_true(program, folder)


def test_the_command_asks_a_live_process(folder: Path) -> None:
    def meshlib(*arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [*MESHLIB, "explain", "GET", "http://payments/x", *arguments]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    with Mesh.static({"payments": ["10.0.0.1:1"]}, admin=folder / "s"):
        said = meshlib("--live", str(folder / "s"), "--json", "-H", "x-a: 1")
        assert json.loads(said.stdout)["endpoint"] == "10.0.0.1:1"
        assert ["x-a", "1"] in json.loads(said.stdout)["headers"]
        assert "10.0.0.1:1 weight 1, healthy  <- first attempt" in meshlib("--live", str(folder / "s")).stdout
    gone = meshlib("--live", str(folder / "s"))
    assert gone.returncode == 2
    assert "no process listens there (Mesh(admin=...))" in gone.stderr
    assert meshlib().returncode == meshlib("--live", "s", "--config", "x").returncode == 2
