"""A lane through a chain of real services: who enters it, who stays on it, and where it falls back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.lanes.lane_world import LaneWorld
from meshlib import Mesh, NoHealthyUpstreamError, on_lane
from parts.fixtures import Servers

GROUP = """\
apiVersion: meshlib.dev/v1
kind: LaneGroup
metadata: {name: shop}
spec:
  services: [a, b, c]
  lanes:
  - name: gray
    match:
    - headers: {x-tag: {exact: beta}}
"""
BASE = ["gateway/", "a/", "b/", "c/"]
GRAY = ["gateway/", "a/gray", "b/", "c/gray"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[[str], LaneWorld]]:
    made: list[LaneWorld] = []

    def start(group: str) -> LaneWorld:
        made.append(LaneWorld(tmp_path, group))
        return made[-1]

    yield start
    for each in made:
        each.stop()


def chain(url: str, **headers: str) -> Any:
    return httpx.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()}).json()


def test_a_coloured_request_keeps_its_lane_where_there_is_one_and_is_back_on_it_after(
    world: Callable[[str], LaneWorld],
) -> None:
    shop = world(GROUP)
    for _ in range(4):
        assert chain(shop.url) == BASE
        assert chain(shop.url, x_tag="beta") == GRAY
        assert chain(shop.url, baggage="mesh-lane=shop/gray") == GRAY
        assert chain(shop.url, baggage="mesh-lane=shop/", x_tag="beta") == BASE  # it was decided before
        assert chain(shop.url, baggage="mesh-lane=shop/unheard-of") == BASE


def test_a_share_by_a_cookie_is_kept_by_every_user_along_the_chain(world: Callable[[str], LaneWorld]) -> None:
    shop = world(GROUP.replace("    match:\n    - headers: {x-tag: {exact: beta}}\n", "")
                 + "    match: [{uri: {prefix: /}}]\n    share: 50\n    by: {cookie: session}\n")  # fmt: skip
    seen = {user: Counter[str]() for user in range(30)}
    with httpx.Client(base_url=shop.url) as client:
        for user, counts in seen.items():
            for _ in range(3):
                served = client.get("/", headers={"cookie": f"session=user-{user}"}).json()
                assert served in (BASE, GRAY)  # never half of one and half of the other
                counts[served[1]] += 1
    assert all(len(counts) == 1 for counts in seen.values())
    on_gray = sum("a/gray" in counts for counts in seen.values())
    assert 5 <= on_gray <= 25


def test_a_strict_lane_fails_where_it_has_no_endpoint(tmp_path: Path, servers: Servers) -> None:
    shop = servers.keep(LaneWorld(tmp_path, GROUP + "  fallback: STRICT\n"))
    with Mesh.from_file(shop.config) as mesh, mesh.http.client("a") as a, mesh.http.client("b") as b:
        with on_lane("shop/gray"):
            assert a.get("/", headers={"x": "1"}).status_code == 500  # a serves it, and b behind it has no gray
            with pytest.raises(NoHealthyUpstreamError):
                b.get("/")
        assert a.get("/").json() == ["a/", "b/", "c/"]
        with pytest.raises(NoHealthyUpstreamError), on_lane("shop/unheard-of"):
            a.get("/")
        assert b.get("/").json() == ["b/", "c/"]


def test_a_call_that_no_request_stands_behind_enters_by_its_own_headers(tmp_path: Path, servers: Servers) -> None:
    shop = servers.keep(LaneWorld(tmp_path, GROUP))
    with Mesh.from_file(shop.config) as mesh, mesh.http.client("a") as a:
        assert a.get("/").json() == ["a/", "b/", "c/"]
        assert a.get("/", headers={"x-tag": "beta"}).json() == ["a/gray", "b/", "c/gray"]
        with on_lane("shop/gray"):
            assert a.get("/").json() == ["a/gray", "b/", "c/gray"]
            assert a.get("/", headers={"baggage": "user=1"}).json() == ["a/gray", "b/", "c/gray"]


@pytest.mark.parametrize("name", ["gray", "shop/", "/gray", ""])
def test_a_lane_is_a_group_and_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="is no lane: 'group/lane' is"), on_lane(name):
        pass
