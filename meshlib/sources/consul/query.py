"""The reads a source makes, as values: a path with every name escaped, and parameters in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, urlencode

from meshlib.model.report import ResourceError

Consistency = Literal["default", "stale", "consistent", "cached"]
"""Consul's modes. `stale` may be answered by any server; `cached` by the agent, which then asks the servers once for
all its clients.
"""

Param = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Query:
    """One read: `subject` names it for people, `path` is escaped, `params` are not."""

    subject: str
    path: str
    params: tuple[Param, ...] = ()

    def target(self, extra: Sequence[Param] = ()) -> str:
        """The request target. A parameter without a value is a bare word, as Consul's flags are."""
        params = (*self.params, *extra)
        words = [quote(name, safe="") if not value else urlencode([(name, value)]) for name, value in params]
        return f"{self.path}?{'&'.join(words)}" if words else self.path


@dataclass(frozen=True, slots=True)
class HealthOptions:
    """What is asked of every service: instances that have all `tags`, that match `filter` (Consul's expressions), and
    with `passing` none with a warning. `near` sorts by round trip from a node (`_agent`: from here).
    """

    passing: bool = False
    tags: tuple[str, ...] = ()
    filter: str = ""
    near: str = ""
    namespace: str = ""
    partition: str = ""


ALL_INSTANCES = HealthOptions()


@dataclass(frozen=True, slots=True)
class Target:
    """Which instances: a discovery target of Consul's chain, or a service by name."""

    service: str
    datacenter: str = ""
    filter: str = ""
    only_passing: bool = False
    tag: str = ""
    namespace: str = ""
    partition: str = ""
    peer: str = ""
    subset: str = ""

    def cluster_name(self, home: str) -> str:
        """Its name as a cluster: `payments`, `v1.payments` for a subset, `payments.dc2` if that is not `home`."""
        where = "" if self.datacenter == home else self.datacenter
        parts = (self.subset, self.service, self.namespace, self.partition, where, self.peer and f"peer.{self.peer}")
        return ".".join(part for part in parts if part)


def health_query(target: Target, options: HealthOptions = ALL_INSTANCES) -> Query:
    """The instances of a target with their health."""
    filters = [text for text in (target.filter, options.filter) if text]
    params: list[Param] = []
    if target.only_passing or options.passing:
        params.append(("passing", "1"))
    params += [("tag", tag) for tag in (*options.tags, target.tag) if tag]
    named = {
        "filter": " and ".join(f"({text})" for text in filters) if len(filters) > 1 else "".join(filters),
        "near": options.near,
        "dc": target.datacenter,
        "ns": target.namespace or options.namespace,
        "partition": target.partition or options.partition,
        "peer": target.peer,
    }
    params += [(name, value) for name, value in named.items() if value]
    return Query(_subject("instances of", target), f"/v1/health/service/{segment(target.service)}", tuple(params))


def chain_query(service: str, datacenter: str = "", options: HealthOptions = ALL_INSTANCES) -> Query:
    """The discovery chain of a service: every config entry about it, compiled by Consul."""
    named = {"compile-dc": datacenter, "ns": options.namespace, "partition": options.partition}
    params = tuple((name, value) for name, value in named.items() if value)
    return Query(f"discovery chain of {service}", f"/v1/discovery-chain/{segment(service)}", params)


def segment(name: str) -> str:
    """A name as one segment of a path. Dots alone cannot be escaped: they would walk up the tree."""
    if name.strip(".") == "" or any(c < " " or c == "\x7f" for c in name):
        raise ResourceError("", f"{name!r} is not a name Consul can be asked for", "Consul service")
    return quote(name, safe="")


def _subject(what: str, target: Target) -> str:
    where = f" in {target.datacenter}" if target.datacenter else ""
    which = f" with {target.filter or target.tag}" if target.filter or target.tag else ""
    return f"{what} {target.service}{which}{where}"
