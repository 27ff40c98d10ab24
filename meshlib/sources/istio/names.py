"""Host names as Istio reads them, and the names of what is generated."""

from __future__ import annotations

DNS_SUFFIX = "svc.cluster.local"
ROOT_NAMESPACE = "istio-system"
"""Whose DestinationRules hold for services that no nearer one speaks for."""


def resolve(host: str, namespace: str) -> str:
    """A host of an object: a short name means a service of the object's own namespace."""
    host = host.lower()
    return host if "." in host or host == "*" else f"{host}.{namespace}.{DNS_SUFFIX}"


def exported_to(export_to: list[str] | None, namespace: str) -> frozenset[str]:
    """Whom an object of `namespace` is for: namespaces, or `*`, which it is by default. `~` is nobody."""
    return frozenset(namespace if to == "." else to for to in export_to or ("*",))


def is_visible(export_to: list[str] | None, namespace: str, caller: str) -> bool:
    """Whether an object of `namespace` is for callers of the namespace `caller`."""
    found = exported_to(export_to, namespace)
    return "*" in found or (caller in found and "~" not in found)


def cluster_name(port: int, subset: str, host: str) -> str:
    """`outbound|9080|v1|reviews.default.svc.cluster.local`."""
    return f"outbound|{port}|{subset}|{host}"


def matches(pattern: str, host: str) -> bool:
    """Whether a host that may begin with `*` covers another (itself perhaps with a wildcard)."""
    return pattern in {"*", host} or (pattern.startswith("*") and host.endswith(pattern[1:]))


def domains(host: str, addresses: tuple[str, ...], namespace: str) -> tuple[str, ...]:
    """What a sidecar's virtual host of a service answers to, for callers of `namespace`; ports are ignored by its route
    configuration.
    """
    return _unique((bracketed(host), f"{host}.", *_short_names(host, namespace), *map(bracketed, addresses)))


def domains_with_port(host: str, port: int, addresses: tuple[str, ...], namespace: str) -> tuple[str, ...]:
    """The same for proxyless gRPC, where the port is part of the authority: each name with and without it."""
    return _unique(tuple(form for name in domains(host, addresses, namespace) for form in (name, f"{name}:{port}")))


def is_address(host: str) -> bool:
    """Whether it is an IPv4 or IPv6 address, as far as names are concerned."""
    return ":" in host or host.replace(".", "").isdigit()


def bracketed(host: str) -> str:
    """An IPv6 address in brackets, as it stands in an authority."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _short_names(host: str, caller: str) -> tuple[str, ...]:
    """`reviews`, `reviews.default.svc`, `reviews.default` for a service in Kubernetes' domain; the first only for
    callers of its namespace.
    """
    if not host.endswith(f".{DNS_SUFFIX}"):
        return ()
    short = host.removesuffix(f".{DNS_SUFFIX}")
    name, dot, namespace = short.partition(".")
    if not dot or "." in namespace:
        return ()
    with_namespace = (f"{short}.svc", short)
    return (name, *with_namespace) if namespace == caller else with_namespace


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if not (is_address(name.rstrip(".")) and name.endswith("."))))
