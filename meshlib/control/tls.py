"""TLS for the control plane's own port."""

from __future__ import annotations

from pathlib import Path

import grpc


def server_credentials(certificate: Path, key: Path) -> grpc.ServerCredentials:
    """Server credentials from PEM files; raises OSError naming the file that cannot be read."""
    return grpc.ssl_server_credentials(((key.read_bytes(), certificate.read_bytes()),))
