"""Istio objects drawn at random over every field that our translation claims, and requests that meet them."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
VERSIONS = ("v1", "v2", "v3")
PORTS = ((80, "HTTP"), (9080, "HTTP"), (9081, "HTTP2"), (9090, "GRPC"), (8123, ""), (27017, "TCP"))
HEADERS = ("end-user", "x-canary", "x-tier")
VALUES = ("jason", "jane", "1", "gold-1", "")
PATHS = ("/", "/reviews", "/reviews/1", "/api/v1/items", "/API/v1/items", "/static/a.css", "/old/x/y")
PARAMETERS = ("q", "page")


@dataclass(frozen=True, slots=True)
class World:
    """`objects` as YAML (each document is JSON, which YAML takes), what to ask, and the names (`host:port`) that istiod
    serves to a proxyless client with endpoints.
    """

    objects: str
    requests: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]
    names: tuple[str, ...]


def generate(seed: int, services: int = 12, requests: int = 12) -> World:
    """A world of that many services; `requests` of each."""
    draw = _Draw(random.Random(seed))
    hosts = [draw.host(number) for number in range(services)]
    entries = [draw.entry(number, host) for number, host in enumerate(hosts)]
    documents = [ANCHOR, *entries]
    for number, entry in enumerate(entries):
        documents += draw.policies(number, entry)
        documents += draw.virtual_service(number, entry, entries)
    asked = [ask for entry in entries for ask in draw.requests(entry, requests)]
    text = "\n---\n".join(json.dumps(document, indent=1) for document in documents)
    return World(text, tuple(asked), tuple(name for entry in entries for name in _names(entry["spec"])))


def _names(spec: Json) -> Iterator[str]:
    if spec["resolution"] == "STATIC" and not spec["hosts"][0].startswith("*") and "exportTo" not in spec:
        yield from (f"{spec['hosts'][0]}:{port['number']}" for port in spec["ports"] if port.get("protocol") != "TCP")


def _document(kind: str, name: str, spec: Json, namespace: str = "default") -> Json:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


ANCHOR = _document(
    "ServiceEntry",
    "anchor",
    {
        "hosts": ["anchor.example.com"],
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
        "resolution": "STATIC",
        "endpoints": [{"address": "10.9.0.1"}],
    },
)
"""Some service has port 80, as in every cluster."""


class _Draw:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def maybe(self, chance: float = 0.5) -> bool:
        return self.rng.random() < chance

    def some(self, fields: dict[str, Any], chance: float = 0.4) -> Json:
        """A part of the fields; a value that is callable is drawn only if its field is in it."""
        chosen = {name: value for name, value in fields.items() if self.maybe(chance)}
        return {name: value() if callable(value) else value for name, value in chosen.items()}

    # ServiceEntry -------------------------------------------------------------------------------------------------

    def host(self, number: int) -> str:
        return self.rng.choice(
            (f"s{number}.default.svc.cluster.local", f"s{number}.other.svc.cluster.local", f"s{number}.example.com",
             f"*.w{number}.example.org")
        )  # fmt: skip

    def entry(self, number: int, host: str) -> Json:
        kinds = ["STATIC", "STATIC", "STATIC", "DNS", "DNS_ROUND_ROBIN", "NONE"]
        resolution = self.rng.choice(["STATIC", "NONE"] if host.startswith("*") else kinds)
        ports = self.rng.sample(PORTS, self.rng.choice((1, 1, 2, 3)))
        spec: Json = {
            "hosts": [host],
            "location": self.rng.choice(("MESH_INTERNAL", "MESH_EXTERNAL")),
            "ports": [self.port(port, protocol) for port, protocol in ports],
            "resolution": resolution,
            **self.some({"exportTo": [self.rng.choice(("*", "default"))]}, 0.2),
        }
        if resolution != "NONE":
            spec["endpoints"] = [self.endpoint(resolution, index, spec) for index in range(self.rng.randint(1, 4))]
        if resolution == "DNS_ROUND_ROBIN":
            del spec["endpoints"][1:]
        if self.maybe(0.3) and not host.startswith("*"):
            spec["addresses"] = [f"10.7.0.{number + 1}"]
        return _document("ServiceEntry", f"s{number}", spec, self.namespace(host))

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
        found: Json = {"address": address, "labels": {"version": self.rng.choice(VERSIONS), "app": "x"}}
        named = {port["name"]: self.rng.randint(3000, 4000) for port in spec["ports"]}
        return found | self.some(
            {"ports": named, "weight": self.rng.randint(1, 9), "locality": self.rng.choice(("eu/a/1", "eu/b", "us"))}
        )

    # DestinationRule ----------------------------------------------------------------------------------------------

    def policies(self, number: int, entry: Json) -> Iterator[Json]:
        spec: Json = {"host": entry["spec"]["hosts"][0]}
        if self.maybe(0.15):
            spec["exportTo"] = [self.rng.choice(("*", "default", "."))]
        if self.maybe(0.7):
            spec["trafficPolicy"] = self.policy(entry)
        subsets = [self.subset(version, entry) for version in VERSIONS]
        if self.maybe(0.3):  # two rules for one host, which istiod puts together
            yield _document("DestinationRule", f"s{number}-a", spec, entry["metadata"]["namespace"])
            spec = {name: spec[name] for name in ("host", "exportTo") if name in spec}
        spec["subsets"] = subsets
        yield _document("DestinationRule", f"s{number}-b", spec, entry["metadata"]["namespace"])

    def subset(self, version: str, entry: Json) -> Json:
        found: Json = {"name": version, "labels": {"version": version}}
        return found | self.some({"trafficPolicy": lambda: self.policy(entry)}, 0.3)

    def policy(self, entry: Json) -> Json:
        found = self.blocks()
        if self.maybe(0.3):
            port = self.rng.choice(entry["spec"]["ports"])["number"]
            found["portLevelSettings"] = [{"port": {"number": port}, **self.blocks()}]
        if self.maybe(0.2):
            found["retryBudget"] = self.some({"percent": self.rng.randint(1, 90), "minRetryConcurrency": 4})
        return found

    def blocks(self) -> Json:
        """At least one block: Istio refuses an empty policy."""
        return self.some(
            {
                "loadBalancer": self.load_balancer,
                "connectionPool": self.connection_pool,
                "outlierDetection": self.outlier_detection,
                "tls": self.tls,
            },
            0.5,
        ) or {"outlierDetection": {"consecutive5xxErrors": 2}}

    def load_balancer(self) -> Json:
        if self.maybe():
            return {"simple": self.rng.choice(("UNSPECIFIED", "LEAST_REQUEST", "RANDOM", "ROUND_ROBIN", "PASSTHROUGH"))}
        key = self.rng.choice(
            (
                {"httpHeaderName": "end-user"},
                {"httpCookie": {"name": "session", **self.some({"ttl": "60s", "path": "/"})}},
                {"httpQueryParameterName": "q"},
                {"useSourceIp": True},
            )
        )
        size = self.rng.choice(
            (
                {},
                {"minimumRingSize": 2048},
                {"ringHash": {"minimumRingSize": 512}},
                {"ringHash": {}},
                {"maglev": {"tableSize": 1009}},
            )
        )
        return {"consistentHash": {**key, **size}}

    def connection_pool(self) -> Json:
        tcp = self.some({"maxConnections": 50, "connectTimeout": "1500ms", "idleTimeout": "90s"})
        http = self.some(
            {
                "http1MaxPendingRequests": 7,
                "http2MaxRequests": 99,
                "maxRequestsPerConnection": 3,
                "maxRetries": 11,
                "idleTimeout": "2m",
                "h2UpgradePolicy": self.rng.choice(("DEFAULT", "UPGRADE", "DO_NOT_UPGRADE")),
                "maxConcurrentStreams": 40,
            }
        )
        return {"tcp": tcp, "http": http}

    def outlier_detection(self) -> Json:
        local = {"splitExternalLocalOriginErrors": True, **self.some({"consecutiveLocalOriginFailures": 4})}
        return (local if self.maybe(0.3) else {}) | self.some(
            {
                "consecutive5xxErrors": self.rng.choice((0, 1, 7)),
                "consecutiveGatewayErrors": self.rng.choice((0, 3)),
                "interval": "5s",
                "baseEjectionTime": "1m30s",
                "maxEjectionPercent": self.rng.choice((0, 60)),
                "minHealthPercent": self.rng.choice((0, 30)),
            }
        )

    def tls(self) -> Json:
        mode = self.rng.choice(("DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"))
        found: Json = {"mode": mode}
        if mode == "MUTUAL":
            found |= {"clientCertificate": "/certs/chain.pem", "privateKey": "/certs/key.pem"}
        if mode in {"SIMPLE", "MUTUAL"}:
            names = {"sni": "sni.example.com", "subjectAltNames": ["one.example.com", "spiffe://a/b"]}
            found |= self.some({"caCertificates": "/certs/ca.pem", **names}, 0.5)
        return found

    # VirtualService -----------------------------------------------------------------------------------------------

    def virtual_service(self, number: int, entry: Json, entries: list[Json]) -> Iterator[Json]:
        if self.maybe(0.2):
            return
        host = entry["spec"]["hosts"][0]
        short = host.removesuffix(".default.svc.cluster.local")
        hosts = [self.rng.choice((host, short))]
        if self.maybe(0.2):
            hosts.append(f"extra{number}.example.com")
        routes = [self.route(entry, entries, last=False) for _ in range(self.rng.randint(0, 4))]
        spec = {"hosts": hosts, "http": [*routes, self.route(entry, entries, last=True)]}
        spec |= self.some({"exportTo": [self.rng.choice(("*", "default", "."))]}, 0.2)
        yield _document("VirtualService", f"s{number}", spec, entry["metadata"]["namespace"])

    def route(self, entry: Json, entries: list[Json], *, last: bool) -> Json:
        route = self.some({"name": self.rng.choice(("canary", "stable")), "headers": self.headers}, 0.3)
        if not last or self.maybe(0.2):
            route["match"] = [self.match(entry) for _ in range(self.rng.choice((1, 1, 2)))]
        kind = self.rng.choice(("route",) * 6 + ("redirect", "directResponse"))
        if kind == "redirect":
            return {**route, "redirect": self.redirect(route)}
        if kind == "directResponse":
            body = self.rng.choice(({}, {"body": {"string": "nothing here"}}, {"body": {"bytes": "YWJj"}}))
            return {**route, "directResponse": {"status": self.rng.choice((200, 404, 503)), **body}}
        route["route"] = self.destinations(entry, entries)
        return route | self.some(
            {
                "timeout": self.rng.choice(("2s", "750ms", "1h")),
                "retries": self.retries,
                "rewrite": lambda: self.rewrite(route),
            }
        )

    def match(self, entry: Json) -> Json:
        ports = [port["number"] for port in entry["spec"]["ports"]]
        return self.some(
            {
                "name": "m",
                "uri": lambda: self.string(
                    PATHS, prefix=("/reviews", "/api/", "/API/"), regex=("/rev.*", ".*", "/[a-z]+")
                ),
                "method": lambda: self.string(("GET", "POST"), prefix=("P",), regex=("GET|PUT",)),
                "authority": lambda: self.string(entry["spec"]["hosts"], prefix=("s1",), regex=("s.*",)),
                "scheme": {"exact": "http"},
                "headers": lambda: {self.rng.choice(HEADERS): self.value_match()},
                "withoutHeaders": lambda: {self.rng.choice(HEADERS): self.value_match()},
                "queryParams": lambda: {self.rng.choice(PARAMETERS): self.parameter_match()},
                "ignoreUriCase": True,
                "port": self.rng.choice(ports),
            },
            0.25,
        )

    def string(self, exact: Any, prefix: Any, regex: Any) -> Json:
        kind = self.rng.choice(("exact", "prefix", "regex"))
        return {kind: self.rng.choice({"exact": exact, "prefix": prefix, "regex": regex}[kind])}

    def value_match(self) -> Json:
        return self.rng.choice(({"exact": "jason"}, {"prefix": "ja"}, {"regex": "gold-[0-9]"}, {}, {"exact": "1"}))

    def parameter_match(self) -> Json:
        return self.rng.choice(({"exact": "1"}, {"prefix": "a"}, {"regex": "[0-9]+"}))

    def destinations(self, entry: Json, entries: list[Json]) -> list[Json]:
        if self.maybe():
            return [self.destination(entry, entries)]
        shares = [{**self.destination(entry, entries), "weight": self.rng.choice((0, 10, 90))} for _ in range(3)]
        shares[0]["weight"] = 25
        return shares

    def destination(self, entry: Json, entries: list[Json]) -> Json:
        other = entry if self.maybe(0.8) else self.rng.choice(entries)
        found: Json = {"host": other["spec"]["hosts"][0], **self.some({"subset": self.rng.choice(VERSIONS)}, 0.6)}
        if other is not entry or self.maybe(0.3):
            found["port"] = {"number": self.rng.choice(other["spec"]["ports"])["number"]}
        return {"destination": found, **self.some({"headers": self.headers}, 0.2)}

    def headers(self) -> Json:
        request = self.some(
            {
                "set": self.rng.choice(({"x-was": "set"}, {"x-was": "set", "Host": "set.example.com"})),
                "add": {"x-more": "added", "x-tier": "more"},
                "remove": ["x-canary"],
            }
        )
        response = self.some({"set": {"x-from": "mesh"}, "add": {"x-two": "2"}, "remove": ["server"]})
        return {"request": request, "response": response}

    def retries(self) -> Json:
        if self.maybe(0.2):
            return {"attempts": 0}
        return {
            "attempts": self.rng.choice((1, 3)),
            **self.some(
                {
                    "perTryTimeout": "1s",
                    "retryOn": self.rng.choice(("5xx,503", "gateway-error,connect-failure", "429,retriable-4xx")),
                    "retryIgnorePreviousHosts": self.maybe(),
                    "backoff": "40ms",
                }
            ),
        }

    def rewrite(self, route: Json) -> Json:
        sets_host = "Host" in json.dumps(route)  # Istio lets the authority be set once only
        found = {} if sets_host else self.some({"authority": "new.example.com"})
        if self.maybe(0.6):
            return found | {"uri": "/rewritten"}
        return found | {"uriRegexRewrite": {"match": "^/([a-z]+)(.*)$", "rewrite": r"/x\2/\1"}}

    def redirect(self, route: Json) -> Json:
        paths: list[Json] = [{"uri": "/moved"}, {}]
        if all("prefix" in match.get("uri", ()) for match in route.get("match", [{}])):  # as Istio demands
            paths.append({"prefixRewrite": "/moved/"})
        path = self.rng.choice(paths)
        port = self.rng.choice(({}, {"port": 8443}, {"port": 80}, {"derivePort": "FROM_REQUEST_PORT"}))
        more = self.some(
            {"authority": "away.example.com", "scheme": "https", "redirectCode": self.rng.choice((302, 308))}
        )
        found = {**path, **port, **more}
        return found if found.keys() - {"scheme", "redirectCode"} else {**found, "uri": "/moved"}

    # Requests -----------------------------------------------------------------------------------------------------

    def requests(self, entry: Json, count: int) -> Iterator[Any]:
        spec = entry["spec"]
        for _ in range(count):
            host = self.rng.choice([*self.names(spec["hosts"][0]), *spec.get("addresses", ())])
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
