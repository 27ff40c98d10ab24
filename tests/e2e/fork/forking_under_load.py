"""A program that forks again and again while threads and an event loop of it are calling.

forking_under_load.py SOURCE TARGET, as `forking.py`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import traceback

from e2e.fork.forking import acall, call, give_up_after, mesh, say

CHILDREN = 25
done = threading.Event()
failures: list[str] = []


def hammer() -> None:
    while not done.is_set():
        try:
            call()
        except Exception as error:  # noqa: BLE001  whatever it is, it is a failed call
            failures.append(repr(error))


async def hammer_async() -> None:
    while not done.is_set():
        try:
            await acall()
        except Exception as error:  # noqa: BLE001
            failures.append(repr(error))


def run_loop() -> None:
    async def several() -> None:
        await asyncio.gather(*(hammer_async() for _ in range(4)))

    asyncio.run(several())


def child() -> None:
    """Call both ways, then end without the parent's clean-up."""
    signal.alarm(15)
    code = 1
    try:
        call()
        asyncio.run(acall())
        code = 0
    except BaseException:  # noqa: BLE001  the child must not go on in the parent's code
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    give_up_after(55)
    mesh().start().wait_ready()
    call()  # Python cannot import in the child what another thread was importing at the fork: import it all before
    asyncio.run(acall())
    threads = [threading.Thread(target=target) for target in (hammer, hammer, hammer, run_loop)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(CHILDREN):
        done.wait(0.03)
        pid = os.fork()
        if pid == 0:
            child()
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    done.set()
    for thread in threads:
        thread.join(15)
    assert set(codes) == {0}, codes
    assert not failures, failures[:3]
    say(f"forked {CHILDREN} children, all of which called; no call of the parent failed")


if __name__ == "__main__":
    main()
