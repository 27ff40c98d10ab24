"""Secrets by SDS whose names say where they are. Istio's agent serves a workload's own identity and files under names
of its own making, so that what it would send can be had without it: from a certificate provider, or from those files.
"""

from __future__ import annotations

from typing import Any

_OWN_CERTIFICATE = "default"
_OWN_ROOTS = "ROOTCA"
_PROVIDER = "default"  # the instance of the bootstrap that Istio's agent writes, and of an identity given in code
_CERTIFICATE_FILES, _ROOT_FILE, _SYSTEM_ROOTS = "file-cert:", "file-root:", "file-root:system"


def certificate_of(name: str) -> dict[str, Any]:
    """The fields of `UpstreamTls` for a certificate's secret name, none for a name that says nothing."""
    if name == _OWN_CERTIFICATE:
        return {"certificate_provider": _PROVIDER}
    chain, tilde, key = name.removeprefix(_CERTIFICATE_FILES).partition("~")
    if name.startswith(_CERTIFICATE_FILES) and chain and tilde and key:
        return {"certificate_chain": chain, "private_key": key}
    return {}


def roots_of(name: str) -> dict[str, Any]:
    """The fields of `UpstreamTls` for a trust bundle's secret name, none for a name that says nothing."""
    if name == _OWN_ROOTS:
        return {"ca_provider": _PROVIDER}
    if name == _SYSTEM_ROOTS:
        return {"system_root_certs": True}
    file = name.removeprefix(_ROOT_FILE)
    return {"trusted_ca": file} if name.startswith(_ROOT_FILE) and file else {}
