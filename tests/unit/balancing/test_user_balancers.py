"""Balancers of the application: asked, and watched."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from meshlib.balancing.base import Host
from meshlib.model.lb import UserLbPolicy
from meshlib.model.metadata import Struct
from meshlib.plugins import register_balancer
from parts.balancing import Bench, address, flat


class LastOnes:
    """Takes the last `count` hosts in turn."""

    def __init__(self, config: Mapping[str, Any], hosts: Sequence[Host]) -> None:
        self.hosts = hosts[-int(config["count"]) :]
        self.turn = 0

    def pick(self, request_hash: int | None, rng: Any, attempt: int = 0) -> Any:
        self.turn += 1
        return self.hosts[self.turn % len(self.hosts)]


class Raising(LastOnes):
    def pick(self, request_hash: int | None, rng: Any, attempt: int = 0) -> Any:
        raise RuntimeError("on strike")


class Stranger(LastOnes):
    def pick(self, request_hash: int | None, rng: Any, attempt: int = 0) -> Any:
        return "10.9.9.9:1"


class Nobody(LastOnes):
    def pick(self, request_hash: int | None, rng: Any, attempt: int = 0) -> Any:
        return None


register_balancer("acme.test.LastOnes", LastOnes)
register_balancer("acme.test.Raising", Raising)
register_balancer("acme.test.Stranger", Stranger)
register_balancer("acme.test.Nobody", Nobody)


def policy(name: str, **config: object) -> UserLbPolicy:
    return UserLbPolicy(f"acme.test.{name}", Struct.of(config))


def test_a_registered_balancer_is_built_with_its_configuration_and_the_hosts_to_use() -> None:
    bench = Bench(flat(5), lb_policy=policy("LastOnes", count=2))
    assert bench.picks(20) == {address(3): 10, address(4): 10}
    bench.eject(address(4))
    assert bench.picks(20) == {address(2): 10, address(3): 10}


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("Raising", {"count": 1}, "on strike"),
        ("Stranger", {"count": 1}, "none of its hosts"),
        ("Nobody", {"count": 1}, "none of its hosts"),
        ("LastOnes", {}, "cannot be built"),  # a configuration that it does not understand
        ("Unknown", {}, "no balancer 'acme.test.Unknown' is registered"),
    ],
)
def test_one_that_fails_is_told_about_once_and_requests_go_round_robin(
    caplog: pytest.LogCaptureFixture, name: str, config: dict[str, object], said: str
) -> None:
    with caplog.at_level(logging.ERROR, "meshlib"):
        bench = Bench(flat(4), lb_policy=policy(name, **config))
        assert bench.picks(20) == {address(number): 5 for number in range(4)}
    (record,) = caplog.records
    assert said in (record.getMessage() + str(record.exc_info))
