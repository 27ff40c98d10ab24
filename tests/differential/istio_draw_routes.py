"""VirtualServices drawn at random over every field that our translation claims."""

import json
from collections.abc import Iterator
from typing import Any

from differential.istio_draw import NAMESPACES, VERSIONS, Chance, Json, document

HEADERS = ("end-user", "x-canary", "x-tier")
PATHS = ("/", "/reviews", "/reviews/1", "/api/v1/items", "/API/v1/items", "/static/a.css", "/old/x/y")
PARAMETERS = ("q", "page")


class Routes(Chance):
    def virtual_service(self, number: int, entry: Json, entries: list[Json]) -> Iterator[Json]:
        if self.maybe(0.2):
            return
        host, namespace = entry["spec"]["hosts"][0], entry["metadata"]["namespace"]
        short = host.removesuffix(f".{namespace}.svc.cluster.local")
        hosts = [self.rng.choice((host, short))]
        if self.maybe(0.2):
            hosts.append(f"extra{number}.example.com")
        if self.maybe(0.15):
            hosts = [self.rng.choice((f"*.{host.partition('.')[2]}", "*.com", f"*{number}.example.com"))]
        routes = [self.route(entry, entries, last=False) for _ in range(self.rng.randint(0, 4))]
        if self.maybe(0.3):
            index = self.rng.randint(0, len(routes))
            root, delegate = self.delegation(f"s{number}-delegate", entry, entries)
            routes.insert(index, root)
            yield from delegate
        spec = {"hosts": hosts, "http": [*routes, self.route(entry, entries, last=True)]}
        spec |= self.some({"exportTo": self.visibility()}, 0.2)
        spec |= self.some({"gateways": ["mesh", f"{namespace}/outside"]}, 0.1)
        yield document("VirtualService", f"s{number}", spec, namespace)
        if self.maybe(0.15):  # a second one for the same host, younger or older, here or there
            age = {"creationTimestamp": "2024-05-01T00:00:00Z"} if self.maybe() else {}
            spec = {"hosts": [host], "http": [self.route(entry, entries, last=True)]} | self.some(
                {"exportTo": self.visibility()}, 0.5
            )
            yield document("VirtualService", f"s{number}-again", spec, self.rng.choice(NAMESPACES), **age)

    def delegation(self, name: str, entry: Json, entries: list[Json]) -> tuple[Json, list[Json]]:
        """A route that delegates, and to whom; now and then nobody is there, or not for this namespace."""
        namespace = self.rng.choice((entry["metadata"]["namespace"], *NAMESPACES))
        root: Json = self.some({"name": "root", "headers": self.headers, "timeout": "5s", "retries": self.retries}, 0.3)
        root |= self.some({"corsPolicy": self.cors, "mirror": {"host": entry["spec"]["hosts"][0]}}, 0.2)
        uri = {"uri": {"prefix": self.rng.choice(("/reviews", "/api/", "/"))}}
        root["match"] = [uri | self.some({"method": {"exact": "GET"}, "headers": {"x-tier": {"exact": "1"}}}, 0.2)]
        root["delegate"] = {"name": name, "namespace": namespace}
        if namespace == entry["metadata"]["namespace"] and self.maybe():
            del root["delegate"]["namespace"]
        routes = [self.route(entry, entries, last=self.maybe(0.3)) for _ in range(self.rng.randint(1, 3))]
        for route in routes:
            if self.maybe(0.7):
                for match in route.get("match", ()):
                    match["uri"] = {"prefix": self.rng.choice(("/reviews/1", "/api/v1", "/API/v1"))}
            route.pop("mirrors", None)  # Istio has either, and the root's comes along
        if all("route" in route for route in routes):
            root |= self.some({"fault": self.fault}, 0.2)
        if self.maybe(0.1):
            return root, []
        spec = {"http": routes} | self.some({"exportTo": self.visibility()}, 0.2)
        return root, [document("VirtualService", name, spec, namespace)]

    def route(self, entry: Json, entries: list[Json], *, last: bool) -> Json:
        route = self.some({"name": self.rng.choice(("canary", "stable")), "headers": self.headers}, 0.3)
        if not last or self.maybe(0.2):
            route["match"] = [self.match(entry) for _ in range(self.rng.choice((1, 1, 2)))]
        if self.maybe(0.15):
            route["corsPolicy"] = self.cors()
        kind = self.rng.choice(("route",) * 6 + ("redirect", "directResponse"))
        if kind == "redirect":
            return {**route, "redirect": self.redirect(route)}
        if kind == "directResponse":
            body = self.rng.choice(({}, {"body": {"string": "nothing here"}}, {"body": {"bytes": "YWJj"}}))
            return {**route, "directResponse": {"status": self.rng.choice((200, 404, 503)), **body}}
        route["route"] = self.destinations(entry, entries)
        route |= self.mirrors(entry, entries) | self.some({"fault": self.fault}, 0.2)
        return route | self.some(
            {
                "timeout": self.rng.choice(("2s", "750ms", "1h")),
                "retries": self.retries,
                "rewrite": lambda: self.rewrite(route),
            }
        )

    def match(self, entry: Json) -> Json:
        ports = [port["number"] for port in entry["spec"]["ports"]]
        found = self.some(
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
        return found | self.some(
            {
                "sourceLabels": self.rng.choice(({"app": "caller"}, {"app": "caller", "tier": "front"}, {"app": "x"})),
                "sourceNamespace": self.rng.choice(NAMESPACES),
                "gateways": self.rng.choice((["mesh"], ["default/outside"], ["mesh", "default/outside"])),
                "statPrefix": "counted",
            },
            0.12,
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
        found = self.target(entry, entries)
        return {"destination": found, **self.some({"headers": self.headers}, 0.2)}

    def target(self, entry: Json, entries: list[Json]) -> Json:
        other = entry if self.maybe(0.8) else self.rng.choice(entries)
        found: Json = {"host": other["spec"]["hosts"][0], **self.some({"subset": self.rng.choice(VERSIONS)}, 0.6)}
        if other is not entry or self.maybe(0.3):
            found["port"] = {"number": self.rng.choice(other["spec"]["ports"])["number"]}
        return found

    def mirrors(self, entry: Json, entries: list[Json]) -> Json:
        kind = self.rng.choice(("",) * 6 + ("mirror", "mirrors"))
        if kind == "mirror":
            share = self.rng.choice(
                ({}, {"mirrorPercentage": {"value": 12.5}}, {"mirrorPercentage": {"value": 0}}, {"mirrorPercent": 40})
            )
            return {"mirror": self.target(entry, entries), **share}
        if kind == "mirrors":
            shares: list[Json] = [{}, {"percentage": {"value": 0.3}}, {"percentage": {"value": 0}}]
            return {"mirrors": [{"destination": self.target(entry, entries), **share} for share in shares]}
        return {}

    def cors(self) -> Json:
        origins = [
            {"exact": "https://shop.example.com"},
            {"prefix": "https://"},
            {"regex": "https://.*\\.example\\.com"},
        ]
        return self.some(
            {
                "allowOrigins": self.rng.sample(origins, 2),
                "allowMethods": ["GET", "PUT"],
                "allowHeaders": ["x-tier", "content-type"],
                "exposeHeaders": ["x-from"],
                "maxAge": self.rng.choice(("24h", "90s")),
                "allowCredentials": self.maybe(),
                "unmatchedPreflights": self.rng.choice(("FORWARD", "IGNORE")),
            },
            0.6,
        )

    def fault(self) -> Json:
        """Istio wants one of the two."""
        share = {"percentage": {"value": self.rng.choice((0, 0.1, 12.5, 33.3, 100))}}
        delay = {"fixedDelay": self.rng.choice(("5s", "10ms", "1h1m1s")), **self.some(share, 0.8)}
        if "percentage" not in delay:
            delay |= self.some({"percent": 30})
        abort = {**self.rng.choice(({"httpStatus": 418}, {"grpcStatus": "UNAVAILABLE"})), **self.some(share, 0.8)}
        return self.some({"delay": delay, "abort": abort}, 0.6) or {"abort": abort}

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
                    "retryRemoteLocalities": self.maybe(),
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
        port = self.rng.choice(
            ({}, {"port": 8443}, {"port": 80}, {"derivePort": "FROM_REQUEST_PORT"},
             {"derivePort": "FROM_PROTOCOL_DEFAULT"})
        )  # fmt: skip
        codes = (301, 302, 303, 307, 308)
        more = self.some({"authority": "away.example.com", "scheme": "https", "redirectCode": self.rng.choice(codes)})
        found = {**path, **port, **more}
        return found if found.keys() - {"scheme", "redirectCode"} else {**found, "uri": "/moved"}
