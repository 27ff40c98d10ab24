"""Gunicorn: the drain in its workers. In `gunicorn.conf.py`:

from meshlib.integrations.gunicorn import post_worker_init
"""

from __future__ import annotations

from meshlib.http.drain import install_all

__all__ = ["post_worker_init"]


def post_worker_init(worker: object) -> None:
    """Install the application's drain as the worker starts, in its main thread. `gthread` workers need it, because
    they serve in other threads; `sync` workers would else install it with their first request.

    The worker goes on serving for `drain_seconds` after SIGTERM: gunicorn's `graceful_timeout` (30 s) must be longer.
    """
    install_all()
