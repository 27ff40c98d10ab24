"""Resolving one name, blocking: by the system's resolver, or by DNS servers that are asked directly."""

from __future__ import annotations

import importlib.util
import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Any

from meshlib.model.dns import Dns
from meshlib.resolve.names import Answer

Lookup = Callable[[str, Dns], Answer]
"""Raises `LookupFailedError`, where another attempt may bring an answer."""
Family = Callable[[str], Answer]
TIMEOUT = 5.0
"""Seconds for all tries of one question to DNS servers."""
_NO_SUCH_NAME = {
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY") if hasattr(socket, name)
}


class LookupFailedError(Exception):
    """No answer: no server reached, or none that knows."""


def lookup(name: str, dns: Dns) -> Answer:
    """The addresses of a name by its settings. Servers of its own, and times to live, need dnspython (`meshlib[dns]`);
    without it the system's resolver is asked.
    """
    if (dns.resolvers or dns.respect_ttl) and name != "localhost" and has_dnspython():
        return by_servers(name, dns)
    return by_system(name, dns)


def has_dnspython() -> bool:
    """Whether DNS servers can be asked directly."""
    return importlib.util.find_spec("dns") is not None


def by_system(name: str, dns: Dns) -> Answer:
    """By the system's resolver, which knows hosts files and search domains, and tells no times to live."""
    return in_families(
        dns,
        lambda host: _system(host, socket.AF_INET, 0),
        lambda host: _system(host, socket.AF_INET6, _CONFIGURED),
        name,
    )


_CONFIGURED = getattr(socket, "AI_ADDRCONFIG", 0)  # no IPv6 addresses where the machine has no IPv6


def _system(host: str, family: socket.AddressFamily, flags: int) -> Answer:
    try:
        found = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as error:
        if error.errno in _NO_SUCH_NAME:
            return Answer(())
        raise LookupFailedError(f"{host}: {error.strerror or error}") from error
    except (OSError, UnicodeError) as error:
        raise LookupFailedError(f"{host}: {error}") from error
    return Answer(tuple(dict.fromkeys(str(target[0]) for *_, target in found)))


def by_servers(name: str, dns: Dns) -> Answer:
    """By DNS servers: those of the settings, else the system's (`/etc/resolv.conf`)."""
    from dns.resolver import Resolver

    resolver = Resolver(configure=not dns.resolvers)
    if dns.resolvers:
        resolver.nameservers = [_server(server.host, server.port or 53) for server in dns.resolvers]
    resolver.lifetime = TIMEOUT
    resolver.timeout = min(2.0, TIMEOUT)

    def ask(kind: str) -> Family:
        return lambda host: _ask(resolver, host, kind, dns)

    return in_families(dns, ask("A"), ask("AAAA"), name)


def _server(host: str, port: int) -> Any:
    from dns.nameserver import Do53Nameserver

    return Do53Nameserver(host, port)


def _ask(resolver: Any, host: str, kind: str, dns: Dns) -> Answer:
    from dns.exception import DNSException
    from dns.resolver import NXDOMAIN, NoAnswer

    try:
        found = resolver.resolve(host, kind, tcp=dns.use_tcp, search=not dns.resolvers)
    except (NXDOMAIN, NoAnswer):
        return Answer(())
    except (DNSException, OSError, ValueError) as error:
        raise LookupFailedError(f"{host}: {error}") from error
    chain = found.chaining_result
    return Answer(tuple(record.address for record in found), float(chain.minimum_ttl))


def in_families(dns: Dns, v4: Family, v6: Family, name: str) -> Answer:
    """By the family wanted. AUTO takes IPv6 where there is any, as Envoy does, but for addresses of this machine alone:
    `localhost` has one of IPv6 nearly everywhere, and what listens there listens on IPv4.
    """
    match dns.lookup_family:
        case "V4_ONLY":
            return v4(name)
        case "V6_ONLY":
            return v6(name)
        case "V4_PREFERRED":
            return _first(v4, v6, name)
        case "ALL":
            return _both(v4, v6, name)
    found = _first(v6, v4, name)
    if found.addresses and all(ipaddress.ip_address(address).is_loopback for address in found.addresses):
        return _first(v4, v6, name)
    return found


def _first(preferred: Family, other: Family, name: str) -> Answer:
    """One family; the other where that has nothing, or fails."""
    try:
        found = preferred(name)
    except LookupFailedError:
        found = other(name)
        if found.addresses:
            return found
        raise
    return found if found.addresses else other(name)


def _both(v4: Family, v6: Family, name: str) -> Answer:
    found: list[Answer] = []
    failure: LookupFailedError | None = None
    for family in (v6, v4):
        try:
            found.append(family(name))
        except LookupFailedError as error:
            failure = error
    if failure is not None and not any(answer.addresses for answer in found):
        raise failure
    ttls = [answer.ttl for answer in found if answer.addresses and answer.ttl is not None]
    return Answer(_interleaved(answer.addresses for answer in found), min(ttls, default=None))


def _interleaved(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """One of each in turn (RFC 8305), so that a broken family costs one try, not all of them."""
    columns = [list(addresses) for addresses in lists]
    longest = max(map(len, columns), default=0)
    return tuple(column[index] for index in range(longest) for column in columns if index < len(column))
