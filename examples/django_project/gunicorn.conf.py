"""Gunicorn reads this by itself: `gunicorn shop.wsgi` in this folder."""

from __future__ import annotations

from meshlib.integrations.gunicorn import post_worker_init

__all__ = ["post_worker_init"]

graceful_timeout = 30  # longer than DRAIN_SECONDS
