"""What stands for a host in a hash table: Envoy's `hashKey`."""

from __future__ import annotations

from ipaddress import ip_address

from meshlib.balancing.base import Host


def hash_key(host: Host, use_hostname: bool) -> bytes:
    """`hash_key` of the host's metadata, else its hostname when asked, else its address.

    Envoy hashes the empty name of a host without hostname, which gives all of them one place; we take the address.
    """
    for name, value in host.metadata:
        if name == "hash_key" and isinstance(value, str) and value:
            return value.encode()
    if use_hostname and host.endpoint.hostname:
        return host.endpoint.hostname.encode()
    return _address_key(host).encode()


def _address_key(host: Host) -> str:
    """The address as Envoy prints it: IPv6 in its short form, a unix socket as its path."""
    address = host.endpoint.address
    if address.path:
        return address.path
    if ":" not in address.host:
        return host.address
    try:
        return f"[{ip_address(address.host)}]:{address.port}"
    except ValueError:
        return host.address
