"""A bookshop in the shape of Istio's bookinfo, as Istio objects: four services, of one three versions.

`services(ports)` are the ServiceEntries; the routes and policies a test adds are its own.
"""

from collections.abc import Iterable, Mapping

HTTP_PORT = 9080
GRPC_PORT = 9090
VERSIONS = {
    "productpage": ("v1",),
    "details": ("v1",),
    "ratings": ("v1",),
    "reviews": ("v1", "v2", "v3"),
}
WORKLOADS = tuple(f"{name}-{version}" for name, versions in VERSIONS.items() for version in versions)

_ENTRY = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: default}}
spec:
  hosts: [{name}.default.svc.cluster.local]
  location: MESH_INTERNAL
  ports:
  - {{number: 9080, name: http, protocol: HTTP}}
  - {{number: 9090, name: grpc, protocol: GRPC}}
  resolution: STATIC
  endpoints:
"""
_ENDPOINT = (
    "  - {{address: 127.0.0.1, labels: {{app: {name}, version: {version}}}, ports: {{http: {http}, grpc: {grpc}}}}}\n"
)


def services(ports: Mapping[str, tuple[int, int]]) -> str:
    """The ServiceEntries; `ports` has for each of `WORKLOADS` where it speaks HTTP and where gRPC."""
    return documents(
        _ENTRY.format(name=name)
        + "".join(
            _ENDPOINT.format(name=name, version=version, http=ports[f"{name}-{version}"][0],
                             grpc=ports[f"{name}-{version}"][1])
            for version in versions
        )
        for name, versions in VERSIONS.items()
    )  # fmt: skip


def subsets(name: str, policy: str = "") -> str:
    """A DestinationRule with a subset for each version, and a traffic policy."""
    versions = ", ".join(f"{{name: {v}, labels: {{version: {v}}}}}" for v in VERSIONS[name])
    return (
        f"apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: default}}\n"
        f"spec:\n  host: {name}\n  subsets: [{versions}]\n" + (f"  trafficPolicy: {policy}\n" if policy else "")
    )


def routes(name: str, http: str) -> str:
    """A VirtualService of the service; `http` is YAML in flow style."""
    return (
        f"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: default}}\n"
        f"spec:\n  hosts: [{name}]\n  http: {http}\n"
    )


def documents(texts: Iterable[str]) -> str:
    """Several objects as one YAML text."""
    return "---\n".join(texts)
