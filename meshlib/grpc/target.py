"""What an application dials, as the authority that configuration speaks for."""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.model.endpoint import Address

_SCHEMES = ("xds", "dns", "ipv4", "ipv6", "unix")


def authority_of(target: str) -> str:
    """`payments`, `payments:443`, `xds:///payments` and `dns:///payments:443` are all hosts of the mesh.

    The authority part of a gRPC URI (`dns://8.8.8.8/payments`) says who resolves the name, which here is the mesh.
    """
    scheme, colon, rest = target.partition(":")
    if not colon or scheme not in _SCHEMES or (scheme == "unix" and not rest):
        return target
    if rest.startswith("//"):
        rest = rest[2:].partition("/")[2]
    elif scheme in ("xds", "dns") and rest.isdigit():
        return target  # a host that is called dns, and its port
    return rest.removeprefix("/") if scheme in ("xds", "dns") else rest


def dialled(host: str, port: int, path: str = "") -> str:
    """An endpoint's address as a gRPC target. An address in numbers needs no resolver; a name does."""
    if path:
        return f"unix:{path}"
    if ":" in host:
        return f"ipv6:[{host}]:{port}"
    return f"ipv4:{host}:{port}" if _is_ipv4(host) else f"dns:///{host}:{port}"


def dialled_all(addresses: Sequence[Address]) -> str:
    """Several addresses as one target, of which grpcio takes the first that answers; of one family, as it wants."""
    first, *others = [dialled(address.host, address.port, address.path) for address in addresses]
    scheme = first.partition(":")[0]
    if scheme not in ("ipv4", "ipv6"):
        return first
    return ",".join([first, *(text.partition(":")[2] for text in others if text.startswith(f"{scheme}:"))])


def _is_ipv4(host: str) -> bool:
    parts = host.split(".")
    return len(parts) == 4 and all(part.isascii() and part.isdigit() and int(part) < 256 for part in parts)
