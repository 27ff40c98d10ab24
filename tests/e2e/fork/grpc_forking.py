"""A program that uses gRPC through a mesh, forks, and says how its child and itself fare.

grpc_forking.py TARGET STUBS STATE CHILD: TARGET is `static=ADDRESS` or `xds=ADDRESS`, STATE what the parent has done
(a method of Program), CHILD what the child does, `sync` or `aio`. It prints `child ...`: ok, refused, hangs, fails or
dies of a signal; and `parent ok`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from meshlib import Mesh, UpstreamConnectError
from parts.grpc_stubs import Stubs

CHILD_PATIENCE, PARENT_PATIENCE = 10, 30  # seconds
REFUSED = 3


class Program:
    """The parent's mesh, its channels, and what it leaves running."""

    def __init__(self, target: str, stubs: str) -> None:
        kind, _, address = target.partition("=")
        options: dict[str, Any] = {"unknown_hosts": "reject"}
        if kind == "xds":
            self.mesh = Mesh.from_xds(address, declared=["payments"], **options)
        else:
            self.mesh = Mesh.static({"payments": [address]}, **options)
        self.stubs = Stubs(Path(stubs))
        self.channel: Any = None
        self.aio_channel: Any = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.stream: Any = None

    def call(self) -> None:
        """A unary call on the blocking channel."""
        if self.channel is None:
            self.channel = self.mesh.grpc.channel("payments")
        assert self.stubs.echo(self.channel).Unary(self.stubs.ask("sync"), timeout=10).text == "sync"

    async def acall(self) -> None:
        """A unary call on the asyncio channel."""
        if self.aio_channel is None:
            self.aio_channel = self.mesh.grpc.aio_channel("payments")
        assert (await self.stubs.echo(self.aio_channel).Unary(self.stubs.ask("aio"), timeout=10)).text == "aio"

    # ------------------------------------------------------------------ what the parent has done

    def imported(self) -> None:
        """Nothing."""

    def used(self) -> None:
        self.call()

    def closed(self) -> None:
        """Some time ago: within milliseconds of it grpcio may hang in the child, without a mesh as well."""
        self.call()
        self.channel.close()
        self.channel = None
        time.sleep(0.3)

    def streaming(self) -> None:
        """A stream that goes on in a thread."""
        self.call()
        self.stream = self.stubs.echo(self.channel).ServerStream(self.stubs.ask(answers=2000, pause=0.01))
        next(self.stream)
        threading.Thread(target=lambda: list(self.stream), daemon=True).start()

    def aio_over(self) -> None:
        """A loop that is closed."""
        asyncio.run(self._aio_over())

    async def _aio_over(self) -> None:
        await self.acall()
        await self.aio_channel.close()
        self.aio_channel = None

    def aio_alive(self) -> None:
        """A loop that goes on in a thread."""
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.on_its_loop(self.acall())

    def on_its_loop(self, work: Coroutine[Any, Any, None]) -> None:
        assert self.loop is not None
        asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def still_works(self) -> None:
        """What the parent used goes on; what it did not, begins."""
        self.call()
        if self.loop is not None:
            self.on_its_loop(self.acall())
        if self.stream is not None:
            assert self.stream.is_active()


def child(program: Program, kind: str) -> None:
    """Call, then end without the parent's clean-up. The alarm ends a child that hangs, whatever it hangs in."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(CHILD_PATIENCE)
    code = 1
    try:
        if kind == "sync":
            program.call()
        else:
            asyncio.run(program.acall())
        code = 0
    except UpstreamConnectError as refused:
        code = REFUSED if "surviv" in str(refused) else 1
    except BaseException:  # noqa: BLE001  the child must not go on in the parent's code
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def outcome(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGALRM:
        return "hangs"
    if code < 0:
        return f"dies of {signal.Signals(-code).name}"
    return {0: "ok", REFUSED: "refused"}.get(code, "fails")


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  the test reads it


def main() -> None:
    target, stubs, state, kind = sys.argv[1:]
    signal.alarm(PARENT_PATIENCE)
    program = Program(target, stubs)
    prepare: Callable[[], None] = getattr(program, state)
    prepare()
    pid = os.fork()
    if pid == 0:
        child(program, kind)
    say(f"child {outcome(os.waitpid(pid, 0)[1])}")
    signal.alarm(CHILD_PATIENCE)
    program.still_works()
    say("parent ok")
    os._exit(0)  # a loop or a stream may go on in a thread


if __name__ == "__main__":
    main()
