"""Settings: what the mesh needs is one app, one middleware and `MESHLIB`."""

from __future__ import annotations

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = os.environ.get("SECRET_KEY", "for local use only")
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
ASGI_APPLICATION = "shop.asgi.application"

INSTALLED_APPS = ["meshlib.integrations.django"]

MIDDLEWARE = [
    "meshlib.integrations.django.MeshMiddleware",  # first: what follows is served with deadline and trace
    "django.middleware.common.CommonMiddleware",
]

MESHLIB = {
    "CONFIG": os.environ.get("MESH_CONFIG", BASE_DIR / "mesh"),
    "UNKNOWN_HOSTS": "reject",
    "RATE_LIMITS": ["200/second"],
    "READINESS_PATH": "/ready",
    "DRAIN_SECONDS": 1.0,
}
