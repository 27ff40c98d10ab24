"""A forked child neither uses nor disturbs the connections of its parent."""

import asyncio
import faulthandler
import os
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from e2e.wire.doors import request
from e2e.wire.raw_server import Peer
from meshlib.http.wire import Address, AsyncPool, PoolStats, SyncPool, Timeouts, WireError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PATIENT = Timeouts(5, 5, 5, 5)
pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
    pytest.mark.filterwarnings(
        "ignore:.*use of fork.*:DeprecationWarning"
    ),  # 3.12 says so because servers run in threads
]


def answers(peer: Peer) -> None:
    while peer.head():
        peer.send(OK)


def in_child(action: Callable[[], None]) -> None:
    """Run the action in a forked child, which must succeed within ten seconds."""
    pid = os.fork()
    if pid == 0:
        code = 1
        faulthandler.dump_traceback_later(8)  # where it hangs, should it hang
        try:
            action()
            code = 0
        except BaseException:  # noqa: BLE001  the child must not come back into pytest
            traceback.print_exc()
        finally:
            os._exit(code)
    killer = threading.Timer(10, os.kill, (pid, 9))
    killer.start()
    _, status = os.waitpid(pid, 0)
    killer.cancel()
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("tls", [False, True])
def test_a_threaded_pool_starts_afresh_in_the_child_and_goes_on_in_the_parent(
    raw: Any, certificates: Any, tls: bool
) -> None:
    server = raw(answers, context=certificates.server if tls else None)
    pool = SyncPool(Address("127.0.0.1", server.port), ssl_context=certificates.client if tls else None)

    def fetch() -> bytes:
        return b"".join(pool.send(request(b"POST", b""), PATIENT))  # never sent again, so a broken one would show

    assert fetch() == b"ok"

    def child() -> None:
        assert pool.stats() == PoolStats(0, 0, 0)
        assert fetch() == b"ok"
        pool.close()

    with pool._lock:  # as if another thread were in the middle of something
        in_child(child)
    assert fetch() == b"ok"
    assert server.connections == 2
    pool.close()


@pytest.mark.parametrize("tls", [False, True])
def test_an_asyncio_pool_is_closed_in_the_child_and_goes_on_in_the_parent(
    raw: Any, certificates: Any, tls: bool
) -> None:
    server = raw(answers, context=certificates.server if tls else None)

    async def scenario() -> None:
        def make() -> AsyncPool:
            return AsyncPool(Address("127.0.0.1", server.port), ssl_context=certificates.client if tls else None)

        async def fetch(pool: AsyncPool) -> bytes:
            response = await pool.send(request(b"POST", b""), PATIENT)
            return b"".join([chunk async for chunk in response])

        pool = make()
        assert await fetch(pool) == b"ok"

        async def child_scenario() -> None:
            with pytest.raises(WireError):
                await fetch(pool)
            await pool.aclose()
            own = make()
            assert await fetch(own) == b"ok"
            await own.aclose()

        def child() -> None:
            asyncio._set_running_loop(None)
            asyncio.run(child_scenario())

        in_child(child)
        assert await fetch(pool) == b"ok"
        await pool.aclose()

    asyncio.run(scenario())
    assert server.connections == 2
