"""A bootstrap whose cluster `up` is behind the global rate limit filter."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from differential.calls_twin import EXTENSIONS, bootstrap, cluster, virtual_host

USER = {"actions": [{"request_headers": {"header_name": "x-user", "descriptor_key": "user"}}]}


def limit(key: str, amount: int, **more: Any) -> dict[str, Any]:
    """One descriptor of the server's configuration: so many a day."""
    return {"key": key, "rate_limit": {"unit": "day", "requests_per_unit": amount}, **more}


def limited(folder: Path, backend: int, limits: list[int], *, more: Any = None, **options: Any) -> Path:
    """The file: calls to anything go to the port `backend`, once the service on one of the ports `limits` lets them."""
    config = {
        "@type": f"{EXTENSIONS}.filters.http.ratelimit.v3.RateLimit",
        "domain": "shop",
        "timeout": "5s",
        "rate_limit_service": {
            "grpc_service": {"envoy_grpc": {"cluster_name": "limits"}},
            "transport_api_version": "V3",
        },
        **options,
    }
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "up", "rate_limits": [USER]}}]
    whole = bootstrap(
        [virtual_host(routes)],
        [cluster("up", [backend]), cluster("limits", limits, **(more or {}))],
        filters=[{"name": "envoy.filters.http.ratelimit", "typed_config": config}],
    )
    path = folder / "limited.json"
    path.write_text(json.dumps(whole))
    return path


def forked(path: Path, what: str) -> list[str]:
    """What `forking.py` says of a bootstrap."""
    here = Path(__file__).parent
    paths = os.pathsep.join((str(here.parents[2]), str(here.parents[1])))
    done = subprocess.run(
        [sys.executable, str(here / "forking.py"), str(path), what],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
