"""Objects in the shapes of Istio's documentation, through our files and through istiod's generator."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from differential.istio_twin import IstioTwin, Request

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
    *("shop.test", "m.shop.test", "www.shop.test", "nobody.test"),
)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IstioTwin]:
    logging.getLogger("meshlib").setLevel(logging.ERROR)  # what is degraded is another test's
    found = IstioTwin(tmp_path_factory.mktemp("samples"), SAMPLES.read_text())
    yield found
    found.close()
    logging.getLogger("meshlib").setLevel(logging.NOTSET)


def requests() -> Iterator[Request]:
    hosts = [f"{form.format(name)}:{port}" for name in LOCAL for form in FORMS for port in (9080, 80)]
    for host in (*hosts, *OUTSIDE):
        for path in PATHS:
            for headers in HEADERS:
                yield "GET", f"http://{host}{path}", headers
        yield "POST", f"http://{host}/reviews/7", ()


def test_every_cluster_is_the_same(twin: IstioTwin) -> None:
    found = {name: (ours, theirs) for name, ours, theirs in twin.clusters()}
    assert len(found) > 15
    for name, (ours, theirs) in found.items():
        assert ours == theirs, name


def test_every_request_is_decided_alike(twin: IstioTwin) -> None:
    compared = 0
    for request, ours, theirs in twin.ask(requests()):
        assert ours == theirs, request
        compared += 1
    assert compared > 1000
