"""`https` to a cluster without TLS: the caller's host names what is verified, and does not fill the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.engine.commands import Start
from meshlib.http.pools import MAX_URL_HOSTS, PoolRegistry
from meshlib.http.wire import SyncPool
from meshlib.http.wire.types import Address, FailureKind, WireError
from meshlib.model.outcome import Failure
from meshlib.model.request import RequestHead

To = Callable[..., "Watched"]


class Watched(SyncPool):
    """A pool that tells what it was made with and whether it was drained. Nothing is connected by making one."""

    def __init__(self, address: Address, **settings: Any) -> None:
        super().__init__(address, **settings)
        self.encrypted = settings["ssl_context"] is not None
        self.name = settings["server_hostname"]
        self.drained = False

    def drain(self) -> None:
        self.drained = True
        super().drain()


@pytest.fixture
def to() -> Iterator[To]:
    """to(authority): the pool for a request with that `Host`, always from the same registry."""
    mesh = Mesh.static({"payments": ["127.0.0.1:1", "127.0.0.1:2"]})
    mesh.ensure_started()
    plan, registry = mesh.runtime.plan, PoolRegistry(Watched, mesh.upstreams)
    cluster = plan.clusters["payments"]

    def get(authority: str, *, scheme: str = "https", endpoint: int = 0) -> Watched:
        head = RequestHead("GET", scheme, authority, "/")
        host = cluster.balancer.hosts[endpoint]
        return registry.get(plan, Start(1, cluster, host, head, None, Failure.CONNECT_TIMEOUT, None))

    yield get
    mesh.close()


def test_the_oldest_pool_of_too_many_hosts_is_drained(to: To) -> None:
    plain, elsewhere = to("payments", scheme="http"), to("0.test", endpoint=1)
    pools = [to(f"{number}.test") for number in range(MAX_URL_HOSTS)]
    assert not any(pool.drained for pool in pools)
    to("one-more.test")
    assert [pool.drained for pool in pools] == [True] + [False] * (MAX_URL_HOSTS - 1)
    assert to("1.test") is pools[1]
    assert to("0.test") is not pools[0]
    assert to("payments", scheme="http") is plain
    assert to("0.test", endpoint=1) is elsewhere
    assert not plain.drained
    assert not elsewhere.drained


@pytest.mark.parametrize(
    "authority,name",
    [
        ("a.test", "a.test"),
        ("a.test:8443", "a.test"),
        ("[::1]", "::1"),
        ("[::1]:8443", "::1"),
        ("10.0.0.1:1", "10.0.0.1"),
    ],
)
def test_the_name_to_verify_is_the_host_alone(to: To, authority: str, name: str) -> None:
    assert (to(authority).encrypted, to(authority).name) == (True, name)
    assert not to(authority, scheme="http").encrypted


@pytest.mark.parametrize("authority", ["", ":443", "[]", "[]:443"])
def test_https_without_a_host_is_not_plain_text(to: To, authority: str) -> None:
    with pytest.raises(WireError, match="without a host") as caught:
        to(authority)
    assert caught.value.kind is FailureKind.TLS_FAILURE
