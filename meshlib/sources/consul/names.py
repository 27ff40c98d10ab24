"""Authorities of calls as Consul's names: `payments`, and the names of Consul's DNS.

    payments   payments:8080
    payments.service.consul          payments.service.dc2.consul
    canary.payments.service.consul   canary.payments.service.dc2.consul      (instances with a tag)

The port is ignored: Consul knows each instance's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")
_PORT = re.compile(r":[0-9]{1,5}$")


@dataclass(frozen=True, slots=True)
class ServiceName:
    """A service, the instances with a tag if `tag`, in a datacenter if `datacenter` (else where Consul looks first)."""

    service: str
    tag: str = ""
    datacenter: str = ""

    def __str__(self) -> str:
        if not self.tag and not self.datacenter:
            return self.service
        return ".".join(part for part in (self.tag, self.service, "service", self.datacenter) if part)


def named_service(authority: str, domain: str = "consul") -> ServiceName | None:
    """The service an authority names, None when it is no name of Consul's (an address, a host of the outside world).

    Consul compares names without case; they are taken in lower case, as URLs have them.
    """
    host = _PORT.sub("", authority).rstrip(".").lower()
    labels = host.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels):
        return None
    if len(labels) == 1:
        return None if host.isdigit() else ServiceName(host)
    suffix = f".{domain}".lower()
    if not host.endswith(suffix):
        return None
    match host.removesuffix(suffix).split("."):
        case [service, "service"]:
            return ServiceName(service)
        case [service, "service", datacenter] | [service, "service", datacenter, "dc"]:
            return ServiceName(service, datacenter=datacenter)
        case [tag, service, "service"]:
            return ServiceName(service, tag)
        case [tag, service, "service", datacenter] | [tag, service, "service", datacenter, "dc"]:
            return ServiceName(service, tag, datacenter)
    return None
