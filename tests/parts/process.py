"""A server as a child process: started with its output in a file, waited for, stopped by its own process id."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

READY_TIMEOUT = 30.0  # seconds; a loaded two-core machine starts Envoy in well under five
STOP_TIMEOUT = 10.0
POLL = 0.01


class ServerError(RuntimeError):
    """The server ended or did not become ready; the message carries the end of its output."""


class Process:
    """One running child in its own session, so that its workers can be ended with it and Ctrl-C reaches only pytest."""

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.argv = list(argv)
        self.log_path = log
        self._log_start = log.stat().st_size if log.exists() else 0  # a restart appends, and must not see old lines
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=log.parent,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    def log(self) -> str:
        """What this run of the server has printed so far."""
        with self.log_path.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def wait_line(self, pattern: str) -> re.Match[str]:
        """Wait for output that matches; a ServerError with the output if the server ends first."""

        def look() -> re.Match[str] | None:
            return re.search(pattern, self.log(), re.MULTILINE)

        return self.wait_for(look, f"output matching {pattern!r}")

    def wait_for(self, look: Callable[[], T | None], what: str, timeout: float = READY_TIMEOUT) -> T:
        """The first true value of look(), asked every 10 ms while the server runs."""
        deadline = time.monotonic() + timeout
        while not (found := look()):
            if not self.running:
                raise ServerError(f"{self.argv[0]} ended with {self._child.returncode} before {what}:\n{self._tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.argv[0]} gave no {what} within {timeout} s:\n{self._tail()}")
            time.sleep(POLL)
        return found

    def pause(self) -> None:
        """Freeze the server (SIGSTOP): connections stay open and nothing answers."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End the server and its workers at once (SIGKILL), as a crash would."""
        self._signal_group(signal.SIGKILL)
        self._child.wait(STOP_TIMEOUT)

    def terminate(self) -> None:
        """Ask the server to end (SIGTERM) and return without waiting."""
        if self.running:
            self._child.terminate()

    def stop(self) -> int:
        """Ask the server to end, insist after ten seconds, and give its exit code. Safe to call twice."""
        if self.running:
            self.resume()
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(STOP_TIMEOUT)
        self._signal_group(signal.SIGKILL)  # it would not end, or what it started has not (a shell's command)
        return self._child.wait(STOP_TIMEOUT)

    def _signal_group(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return  # everything in the group has ended

    def _tail(self) -> str:
        return self.log()[-4000:]


class Server:
    """A handle on one server that can be frozen, killed and brought back at the same address.

    A subclass says how it starts (`_start`, which must choose the same port each time) and is started when it is made.
    """

    host = "127.0.0.1"
    port: int

    def __init__(self) -> None:
        self._process = self._start()

    def _start(self) -> Process:
        raise NotImplementedError

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections are accepted by the kernel and nothing answers."""
        self._process.pause()

    def resume(self) -> None:
        self._process.resume()

    def kill(self) -> None:
        """End it as a crash would: connections are reset, new ones refused."""
        self._process.kill()

    def terminate(self) -> None:
        """SIGTERM, without waiting: it drains as such servers do."""
        self._process.terminate()

    def stop(self) -> None:
        """Safe to call twice."""
        self._process.stop()

    def restart(self) -> None:
        """Start again at the same address, with no memory."""
        self.stop()
        self._process = self._start()
