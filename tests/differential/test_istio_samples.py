"""Objects in the shapes of Istio's documentation, through our files and through istiod's generator, for several
callers: one of whom nothing is known, one in a region, one of another namespace and network, one whose view a Sidecar
narrows.
"""

import logging
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from differential.istio_twin import IstioTwin, Request
from parts.istio_nodes import Asker
from parts.istio_server import IstioServer

pytestmark = pytest.mark.needs("istio_generator")
SAMPLES = Path(__file__).with_name("istio_samples.yaml")
FORMS = ("{}", "{}.default", "{}.default.svc", "{}.default.svc.cluster.local", "{}.default.svc.cluster.local.")
PATHS = ("/", "/productpage", "/api/v1/products", "/static/x.css", "/catalog?beta=1", "/Login", "/reviews/7?q=1")
HEADERS: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    (("end-user", "jason"),),
    (("end-user", "jane"), ("x-canary", "true")),
    (("cookie", "user=tester; x=1"),),
    (("user-agent", "Mozilla/5.0 (Android)"),),
)
LOCAL = ("productpage", "reviews", "ratings", "details", "inventory")
OUTSIDE = (
    *("api.external.test:80", "a.wild.test", "wild.test:80", "vm.test:8080", "10.20.0.9:8080"),
    *("shop.test", "m.shop.test", "www.shop.test", "nobody.test", "private.test", "machines"),
    *("httpbin:8000", "helloworld:5000", "helloweight.default:5000", "hellolabels:5000"),
)
ASKERS = {
    "anybody": Asker(),
    "shop in region1": Asker("default", (("app", "shop"), ("version", "v1")), "region1/zone1"),
    "other in region2": Asker("other", (("version", "v2"),), "region2/zone3", "net-2"),
    "narrow": Asker("narrow", (), "region3"),
}
Make = Callable[[str], IstioTwin]


@pytest.fixture(scope="module")
def twin_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    logging.getLogger("meshlib").setLevel(logging.ERROR)  # what is degraded is another test's
    server = IstioServer(tmp_path_factory.mktemp("samples"), SAMPLES.read_text())
    yield cache(lambda name: IstioTwin(server, ASKERS[name]))
    server.stop()
    logging.getLogger("meshlib").setLevel(logging.NOTSET)


def requests() -> Iterator[Request]:
    hosts = [f"{form.format(name)}:{port}" for name in LOCAL for form in FORMS for port in (9080, 80)]
    for host in (*hosts, *OUTSIDE):
        for path in PATHS:
            for headers in HEADERS:
                yield "GET", f"http://{host}{path}", headers
        yield "POST", f"http://{host}/reviews/7", ()


@pytest.mark.parametrize("name", ASKERS)
def test_every_cluster_is_the_same(name: str, twin_of: Make) -> None:
    twin = twin_of(name)
    assert [str(issue) for issue in twin.issues if issue.severity == "error"] == []
    found = {cluster: (ours, theirs) for cluster, ours, theirs in twin.clusters()}
    assert len(found) > (2 if name == "narrow" else 20)
    for cluster, (ours, theirs) in found.items():
        assert ours == theirs, cluster


@pytest.mark.parametrize("name", ASKERS)
def test_every_virtual_host_is_the_same(name: str, twin_of: Make) -> None:
    compared = 0
    for host, ours, theirs in twin_of(name).virtual_hosts():
        assert ours == theirs, host
        compared += 1
    assert compared > 4


@pytest.mark.parametrize("name", ASKERS)
def test_every_request_is_decided_alike(name: str, twin_of: Make) -> None:
    compared = 0
    for request, ours, theirs in twin_of(name).ask(requests()):
        assert ours == theirs, request
        compared += 1
    assert compared > 1000


def priorities(twin: IstioTwin, host: str) -> dict[str, int]:
    """The priority of each of the endpoints 10.30.0.1 to 4, by the last number."""
    assignment = twin.ours.endpoints[f"outbound|5000||{host}.default.svc.cluster.local"]
    return {
        str(endpoint.address).partition(":")[0].rpartition(".")[2]: locality.priority
        for locality in assignment.localities
        for endpoint in locality.endpoints
    }


def test_the_callers_are_answered_differently(twin_of: Make) -> None:
    """What the comparisons above are about is in them: each feature tells callers apart."""
    shop, other = twin_of("shop in region1"), twin_of("other in region2")
    assert priorities(shop, "helloworld") == {"1": 0, "2": 1, "3": 2, "4": 3}
    assert priorities(other, "helloworld") == {"3": 0, "1": 1, "2": 1, "4": 1}
    assert set(priorities(twin_of("anybody"), "helloworld").values()) == {0}
    assert priorities(shop, "helloweight").keys() == {"1", "2", "4"}
    assert priorities(shop, "hellolabels") == {"1": 0, "2": 1, "3": 2, "4": 2}
    assert priorities(other, "hellolabels") == {"3": 0, "1": 1, "2": 1, "4": 1}
    inventory = "outbound|80||inventory.default.svc.cluster.local"
    limits = {name: twin_of(name).ours.clusters[inventory].circuit_breakers.default.max_connections
              for name in ("anybody", "shop in region1", "other in region2")}  # fmt: skip
    assert limits == {"anybody": 2**32 - 1, "shop in region1": 5, "other in region2": 7}
    assert "outbound|80||private.test" in other.ours.clusters
    assert "outbound|80||private.test" not in shop.ours.clusters
    assert {name for name in twin_of("narrow").ours.clusters if name.startswith("outbound|")} == {
        *(f"outbound|9080|{version}|reviews.default.svc.cluster.local" for version in ("", "v1", "v2", "v3")),
        *(f"outbound|9090|{version}|reviews.default.svc.cluster.local" for version in ("", "v1", "v2", "v3")),
        *(name for name in twin_of("narrow").ours.clusters if "vm.test" in name),
    }
