"""DestinationRules drawn at random over every field that our translation claims."""

from collections.abc import Iterator

from differential.istio_draw import NAMESPACES, VERSIONS, Chance, Json, document

ROOT = "istio-system"
REGIONS = ("eu", "us", "asia")
TOPOLOGY = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")


class Rules(Chance):
    by_name = False
    """Whether the service is resolved by DNS: there istiod ends in a panic over `failoverPriority`, and what
    `distribute` makes of it can be a cluster without a name to resolve, which Envoy refuses.
    """

    def policies(self, number: int, entry: Json) -> Iterator[Json]:
        host, namespace = entry["spec"]["hosts"][0], entry["metadata"]["namespace"]
        self.by_name = entry["spec"]["resolution"].startswith("DNS")
        spec: Json = {"host": host}
        if self.maybe(0.15):
            spec["exportTo"] = self.visibility()
        if self.maybe(0.7):
            spec["trafficPolicy"] = self.policy(entry)
        subsets = [self.subset(version, entry) for version in VERSIONS]
        if self.maybe(0.3):  # two rules for one host, which istiod puts together
            yield document("DestinationRule", f"s{number}-a", spec, namespace)
            spec = {name: spec[name] for name in ("host", "exportTo") if name in spec}
            if self.maybe(0.3):
                spec["exportTo"] = self.visibility()
        spec["subsets"] = subsets
        yield document("DestinationRule", f"s{number}-b", spec, namespace, **self.age())
        if self.maybe(0.2):
            yield self.selective(number, entry)
        if self.maybe(0.15):  # of another namespace: of the callers there, or of the mesh
            place = self.rng.choice((*NAMESPACES, ROOT))
            over = self.rng.choice((host, f"*.{host.partition('.')[2]}"))
            self.by_name = self.by_name or over.startswith("*")  # it may meet such a service
            subsets = [self.subset(version, entry) for version in VERSIONS]
            spec = {"host": over, "subsets": subsets, "trafficPolicy": self.policy(entry)}
            yield document("DestinationRule", f"s{number}-c", spec | self.exported(0.3), place)

    def selective(self, number: int, entry: Json) -> Json:
        """A rule for some callers of its namespace."""
        labels = self.rng.choice(({"app": "caller"}, {"app": "nobody"}, {"tier": "front"}, {}))
        spec = {"host": entry["spec"]["hosts"][0], "workloadSelector": {"matchLabels": labels}}
        spec["trafficPolicy"] = self.policy(entry)
        spec["subsets"] = [self.subset("v1", entry)]
        return document("DestinationRule", f"s{number}-d", spec, self.rng.choice(NAMESPACES))

    def age(self) -> Json:
        """Objects that say when they were made are older than those that do not."""
        return self.some({"creationTimestamp": f"2024-0{self.rng.randint(1, 9)}-01T00:00:00Z"}, 0.3)

    def exported(self, chance: float) -> Json:
        return {"exportTo": self.visibility()} if self.maybe(chance) else {}

    def subset(self, version: str, entry: Json) -> Json:
        found: Json = {"name": version, "labels": {"version": version}}
        if self.maybe(0.1):
            found["labels"] = {"topology.kubernetes.io/region": "eu"}
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
            kinds = ("UNSPECIFIED", "LEAST_CONN", "LEAST_REQUEST", "RANDOM", "ROUND_ROBIN", "PASSTHROUGH")
            found: Json = {"simple": self.rng.choice(kinds)}
            found |= self.warmup()
        else:
            found = {"consistentHash": self.consistent_hash()}
        return found | self.localities()

    def warmup(self) -> Json:
        if self.maybe(0.7):
            return {}
        if self.maybe(0.3):
            return {"warmupDurationSecs": "45s"}
        return {"warmup": {"duration": "2m", **self.some({"minimumPercent": 5, "aggression": 1.5})}}

    def consistent_hash(self) -> Json:
        cookie = {"ttl": "60s", "path": "/", "attributes": [{"name": "SameSite", "value": "Lax"}, {"name": "Secure"}]}
        key = self.rng.choice(
            (
                {"httpHeaderName": "end-user"},
                {"httpCookie": {"name": "session", **self.some(cookie)}},
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
        return {**key, **size}

    def localities(self) -> Json:
        """Half of the time nothing is said, and the localities are on by default."""
        more = () if self.by_name else ("distribute", "labels", "both")
        kind = self.rng.choice(("", "", "", "off", "failover", "zones", *more))
        failover = [{"from": "eu", "to": self.rng.choice(("us", "asia"))}]
        found: Json
        if not kind:
            return {}
        if kind == "zones":
            zones = self.some({"enabled": self.maybe(), "minClusterSize": 3, "failover": failover}, 0.5)
            wanted = {} if self.by_name else {"failoverPriority": self.wanted(topology=False)}
            return {"zoneAwareLbSetting": zones | self.some(wanted, 0.3)}
        if kind == "off":
            found = {"enabled": False}
        elif kind == "failover":
            found = {"failover": failover}
        elif kind == "labels":
            found = {"failoverPriority": self.wanted(topology=True)}
        elif kind == "both":
            found = {"failover": failover, "failoverPriority": self.wanted(topology=False)}
        else:
            found = {"distribute": self.distribution()}
        return {"localityLbSetting": {**({"enabled": True} if self.maybe(0.3) else {}), **found}}

    def wanted(self, *, topology: bool) -> list[str]:
        network = ["topology.istio.io/network"] if self.maybe(0.3) else []
        named = ["app", self.rng.choice(("version", "version=v2"))]
        return [*network, *(TOPOLOGY if topology and self.maybe() else ()), *self.rng.sample(named, 2)]

    def distribution(self) -> list[Json]:
        rules = [
            {"from": "eu/a/*", "to": {"eu/a/*": 70, "us": 30}},
            {"from": "eu/*", "to": {"eu/a/1": 20, "eu/b": 50, "us/x": 30}},
            {"from": "us", "to": {"us": 100}},
        ]
        return rules[self.rng.randint(0, 1) :]

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
        if "h2UpgradePolicy" not in http and self.maybe(0.2):
            http["useClientProtocol"] = True
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
            names = {"subjectAltNames": ["one.example.com", "spiffe://a/b"]}
            found |= self.some({"sni": "sni.example.com"}, 0.5)
            if self.maybe(0.2):
                return found | {"insecureSkipVerify": True}
            found |= self.some({"caCertificates": "/certs/ca.pem", **names}, 0.5)
            found |= self.some({"caCrl": "/certs/revoked.pem"}, 0.1)
        return found
