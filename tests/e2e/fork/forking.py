"""A program that brings a mesh into some state, forks (or spawns) children, and has everybody call and be updated.

    forking.py SOURCE TARGET STATE METHOD

SOURCE is static, file, xds or consul; TARGET its endpoint, folder, control plane or agent. STATE is what the parent has
done before its children start: imported, starting-20 (20 ms ago), started (and waited), sync (has called), aio (its
loop is alive in a thread and has called). METHOD is multiprocessing's. Prints `ready` when parent and children have
called, then waits for the backend named `new`.
"""

from __future__ import annotations

import asyncio
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any

from meshlib import Mesh

CHILDREN = 2
PATIENCE = 15.0


@cache
def mesh() -> Mesh:
    """The mesh of this program: made once, and inherited by children that are forked."""
    source, target = sys.argv[1:3]
    if source == "static":
        return Mesh.static({"payments": [target], "orders": [target]}, unknown_hosts="reject")
    if source == "file":
        return Mesh.from_file(target, unknown_hosts="reject")
    if source == "consul":
        return Mesh.from_consul(target, declared=["payments"], unknown_hosts="reject")
    return Mesh.from_xds(target, declared=["payments"], unknown_hosts="reject")


@cache
def client() -> Any:
    return mesh().http.client("payments")


@cache
def async_client() -> Any:
    return mesh().http.async_client("payments")


def headers() -> dict[str, str]:
    return {"x-pid": str(os.getpid())}


def call() -> str:
    response = client().get("/", headers=headers())
    return str(response.json()["name"])


async def acall() -> str:
    response = await async_client().get("/", headers=headers())
    return str(response.json()["name"])


async def acall_with_new_clients() -> None:
    """A host nobody has asked for yet, a client of the child's own, and many calls at once."""
    async with mesh().http.async_client("orders") as own:
        answers = await asyncio.gather(*(own.get("/", headers=headers()) for _ in range(8)))
        assert {answer.status_code for answer in answers} == {200}


class Loop:
    """An event loop alive in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)


def until_new(one_call: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while (name := one_call()) != "new":
        assert time.monotonic() < deadline, f"{os.getpid()}: still {name}: no update has come"
        time.sleep(0.02)


def say(line: str) -> None:
    """Print in one write: several processes share the pipe."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def give_up_after(seconds: int) -> None:
    """Show every thread's stack and end. By a signal, because faulthandler's own timer does not survive a fork."""
    faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
    signal.alarm(seconds)


def child(ready: Any, changes: bool) -> None:
    give_up_after(30)

    async def everything() -> None:
        await acall()
        await acall_with_new_clients()
        ready.release()
        while changes and await acall() != "new":  # noqa: ASYNC110  it is another process that changes it
            await asyncio.sleep(0.02)

    call()
    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    asyncio.run(everything())
    if changes:
        until_new(call)
    for thread in threads:
        thread.join(PATIENCE)
    say("child done")


def main() -> None:
    source, _, state, method = sys.argv[1:]
    give_up_after(35)
    changes, loop = source != "static", Loop() if state == "aio" else None
    if state.startswith("starting"):
        mesh().start()
        time.sleep(float(state.removeprefix("starting-")) / 1000)
    elif state != "imported":
        mesh().start().wait_ready()
    if state == "sync":
        call()
    if loop is not None:
        loop.run(acall())
    context = multiprocessing.get_context(method)
    ready = context.Semaphore(0)
    children = [context.Process(target=child, args=(ready, changes)) for _ in range(CHILDREN)]
    for process in children:
        process.start()
    for _ in children:
        assert ready.acquire(timeout=PATIENCE), "a child hangs"
    call()
    say("ready")
    if changes:
        until_new((lambda: loop.run(acall())) if loop else call)
    for process in children:
        process.join(PATIENCE)
        assert process.exitcode == 0, process.exitcode
    call()
    say("parent done")


if __name__ == "__main__":
    main()
