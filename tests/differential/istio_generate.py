"""Istio objects drawn at random over every field that our translation claims, who asks, and requests that meet them."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from differential.istio_draw import LOCALITIES, NAMESPACES, VERSIONS, Json, document
from differential.istio_draw_routes import HEADERS, PATHS, Routes
from differential.istio_draw_rules import Rules
from parts.istio_nodes import Asker

PORTS = ((80, "HTTP"), (9080, "HTTP"), (9081, "HTTP2"), (9090, "GRPC"), (8123, ""), (27017, "TCP"))
VALUES = ("jason", "jane", "1", "gold-1", "")
ASKERS = (
    Asker(),
    Asker("default", (("app", "caller"),), "eu/a/1"),
    Asker("other", (("app", "caller"), ("tier", "front"), ("version", "v2")), "us/x/2"),
    Asker("default", (("app", "caller"), ("version", "v1")), "eu/b", "net-2"),
    Asker("istio-system", (("tier", "front"),), "asia"),
)


@dataclass(frozen=True, slots=True)
class World:
    """`objects` as YAML (each document is JSON, which YAML takes), who asks, what to ask, and the names (`host:port`)
    that istiod serves to a proxyless client with endpoints.
    """

    objects: str
    asker: Asker
    requests: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]
    names: tuple[str, ...]


def generate(seed: int, services: int = 12, requests: int = 12, *, scoped: bool = True) -> World:
    """A world of that many services; `requests` of each. `scoped`: a Sidecar may say which of them are seen."""
    draw = _Draw(random.Random(seed))
    hosts = [draw.host(number) for number in range(services)]
    found = [[*draw.entry(number, host)] for number, host in enumerate(hosts)]
    entries = [objects[0] for objects in found]
    documents = [ANCHOR, *(each for objects in found for each in objects)]
    for number, entry in enumerate(entries):
        documents += draw.policies(number, entry)
        documents += draw.virtual_service(number, entry, entries)
    asker = ASKERS[seed % len(ASKERS)]
    if scoped:
        documents += draw.sidecar(asker)
    asked = [ask for entry in entries for ask in draw.requests(entry, requests)]
    text = "\n---\n".join(json.dumps(each, indent=1) for each in documents)
    return World(text, asker, tuple(asked), tuple(name for entry in entries for name in _names(entry["spec"])))


def _names(spec: Json) -> Iterator[str]:
    if spec["resolution"] == "STATIC" and not spec["hosts"][0].startswith("*") and "exportTo" not in spec:
        yield from (f"{spec['hosts'][0]}:{port['number']}" for port in spec["ports"] if port.get("protocol") != "TCP")


ANCHOR = document(
    "ServiceEntry",
    "anchor",
    {
        "hosts": ["anchor.test"],
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
        "resolution": "STATIC",
        "endpoints": [{"address": "10.9.0.1"}],
    },
)
"""Some service has port 80, as in every cluster."""


class _Draw(Rules, Routes):
    # ServiceEntry -------------------------------------------------------------------------------------------------

    def host(self, number: int) -> str:
        return self.rng.choice(
            (f"s{number}.default.svc.cluster.local", f"s{number}.other.svc.cluster.local", f"s{number}.example.com",
             f"*.w{number}.example.org")
        )  # fmt: skip

    def entry(self, number: int, host: str) -> Iterator[Json]:
        """The entry and what belongs to it."""
        kinds = ["STATIC", "STATIC", "STATIC", "DNS", "DNS_ROUND_ROBIN", "NONE"]
        resolution = self.rng.choice(["STATIC", "NONE"] if host.startswith("*") else kinds)
        ports = self.rng.sample(PORTS, self.rng.choice((1, 1, 2, 3)))
        spec: Json = {
            "hosts": [host],
            "location": self.rng.choice(("MESH_INTERNAL", "MESH_EXTERNAL")),
            "ports": [self.port(port, protocol) for port, protocol in ports],
            "resolution": resolution,
            **self.some({"exportTo": self.visibility()}, 0.2),
            **self.some({"subjectAltNames": ["spiffe://cluster.local/ns/default/sa/named"]}, 0.2),
        }
        namespace = self.namespace(host)
        if self.maybe(0.05):
            spec["exportTo"] = ["~"]
        if self.maybe(0.3) and not host.startswith("*"):
            block = self.rng.choice(("", "/32")) if resolution in {"STATIC", "NONE"} else ""
            spec["addresses"] = [f"10.7.0.{number + 1}{block}"]
        all_http = all(port.get("protocol") not in {"TCP", None} for port in spec["ports"])
        is_free = "addresses" not in spec and not host.startswith("*")
        if all_http and is_free and self.maybe(0.3):  # Istio wants one host for what is not HTTP
            spec["hosts"].append(f"also{number}.example.com")
        entry = document("ServiceEntry", f"s{number}", spec, namespace)
        if resolution == "NONE":
            yield entry
            return
        endpoints = [self.endpoint(resolution, index, spec) for index in range(self.rng.randint(1, 4))]
        if resolution == "STATIC" and self.maybe(0.25):
            spec["workloadSelector"] = {"labels": {"app": f"x{number}"}}
            yield entry
            yield from self.workloads(number, endpoints, namespace)
            return
        spec["endpoints"] = endpoints[:1] if resolution == "DNS_ROUND_ROBIN" else endpoints
        yield entry
        if resolution == "STATIC" and self.maybe(0.2):
            yield document("ServiceEntry", f"s{number}-more", self.more(spec), namespace)

    def more(self, spec: Json) -> Json:
        """Another entry of the same host: more endpoints, maybe another port."""
        port = self.port(7070, "HTTP") if self.maybe() else spec["ports"][0]
        endpoints = [{**self.endpoint("STATIC", 9, {"ports": [port]}), "address": "10.8.200.1"}]
        return {**spec, "ports": [port], "endpoints": endpoints}

    def workloads(self, number: int, endpoints: list[Json], namespace: str) -> Iterator[Json]:
        for index, endpoint in enumerate(endpoints):
            labels = {"app": f"x{number}"} if self.maybe(0.8) else {"app": "somebody"}
            own = {name: value for name, value in endpoint["labels"].items() if name != "app"}
            place = namespace if self.maybe(0.9) else self.rng.choice(NAMESPACES)
            yield document("WorkloadEntry", f"w{number}-{index}", {**endpoint, "labels": own}, place, labels=labels)

    def namespace(self, host: str) -> str:
        return "other" if ".other." in host else "default"

    def port(self, number: int, protocol: str) -> Json:
        found: Json = {"number": number, "name": f"{protocol.lower() or 'any'}-{number}"}
        if protocol:
            found["protocol"] = protocol
        return found | self.some({"targetPort": self.rng.randint(2000, 3000)}, 0.2)

    def endpoint(self, resolution: str, index: int, spec: Json) -> Json:
        dns = resolution != "STATIC"
        address = f"e{index}.example.net" if dns else f"10.8.{self.rng.randint(0, 99)}.{index + 1}"
        found: Json = {"address": address, "labels": {"version": self.rng.choice(VERSIONS), "app": "caller"}}
        if self.maybe(0.1):
            found["labels"]["security.istio.io/tlsMode"] = self.rng.choice(("istio", "disabled"))
        named = {port["name"]: self.rng.randint(3000, 4000) for port in spec["ports"]}
        return found | self.some(
            {
                "ports": named,
                "weight": self.rng.randint(1, 9),
                "locality": self.rng.choice(LOCALITIES),
                "network": self.rng.choice(("net-1", "net-2")),
                "serviceAccount": self.rng.choice(("reader", "writer")),
            },
            0.3,
        )

    # Sidecar ------------------------------------------------------------------------------------------------------

    def sidecar(self, asker: Asker) -> Iterator[Json]:
        if self.maybe(0.7):
            return
        hosts = self.rng.choice(
            (["./*", "istio-system/*"], ["*/*"], ["default/*", "other/*.example.com"], ["~other/*", "*/*"],
             ["*/s1.example.com", "./*"], ["~default/*.example.com", "*/*"])
        )  # fmt: skip
        spec: Json = {"egress": [{"hosts": [*hosts, "*/anchor.test"]}]}
        if self.maybe(0.3):
            spec["outboundTrafficPolicy"] = {"mode": self.rng.choice(("ALLOW_ANY", "REGISTRY_ONLY"))}
        if asker.labels and self.maybe():
            spec["workloadSelector"] = {"labels": dict(asker.labels[:1])}
        yield document("Sidecar", "scope", spec, self.rng.choice((asker.namespace, "istio-system"))
                       if "workloadSelector" not in spec else asker.namespace)  # fmt: skip

    # Requests -----------------------------------------------------------------------------------------------------

    def requests(self, entry: Json, count: int) -> Iterator[Any]:
        spec = entry["spec"]
        for _ in range(count):
            named = [name for known in spec["hosts"] for name in self.names(known)]
            host = self.rng.choice([*named, *(address.removesuffix("/32") for address in spec.get("addresses", ()))])
            port = self.rng.choice([*(port["number"] for port in spec["ports"]), 80, 4321])
            query = self.rng.choice(("", "?q=1", "?q=abc&page=2", "?page="))
            names = self.rng.sample(HEADERS, self.rng.randint(0, 2))
            headers = tuple((name, self.rng.choice(VALUES)) for name in names)
            method = self.rng.choice(("GET", "POST", "PUT"))
            yield method, f"http://{host}:{port}{self.rng.choice(PATHS)}{query}", headers

    def names(self, host: str) -> tuple[str, ...]:
        if host.startswith("*"):
            return (f"a{host[1:]}", f"a.b{host[1:]}", host[2:])
        head, svc, _ = host.partition(".svc.")
        if not svc:
            return (host, host.upper(), f"{host}.")
        return (host, head, f"{head}.svc", head.partition(".")[0])
