"""`meshlib control-plane --dir conf/`: the embedded control plane as a process."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshlib.cli.output import print_issues

if TYPE_CHECKING:
    from meshlib.cli.subscriber_log import SubscriberLog
    from meshlib.control.control_plane import ControlPlane

DESCRIPTION = """\
Serves the configuration of a directory over xDS (ADS, state of the world and delta) to Envoy, proxyless gRPC and
meshlib. Every edit is validated before it is served; one with an error is refused with file, line and reason, and
subscribers keep the version before it. SIGTERM and SIGINT stop it.
"""
EPILOG = """\
examples:
  meshlib control-plane --dir conf/
  meshlib control-plane --dir conf/ --host 0.0.0.0 --port 18000 --tls-cert cert.pem --tls-key key.pem

A client finds it by GRPC_XDS_BOOTSTRAP_CONFIG:
  {"xds_servers": [{"server_uri": "127.0.0.1:18000", "channel_creds": [{"type": "insecure"}],
                    "server_features": ["xds_v3"]}], "node": {"id": "app"}}
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument(
        "--dir", action="append", required=True, metavar="DIR", help="directory or file; may be repeated"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=18000, help="port, 0 picks one (default %(default)s)")
    parser.add_argument("--tls-cert", metavar="PEM", type=Path, help="certificate chain of the server")
    parser.add_argument("--tls-key", metavar="PEM", type=Path, help="its private key")


def run(options: argparse.Namespace) -> int:
    """Serve until a signal comes. 1 when the first version has errors or the address cannot be had."""
    from meshlib.cli.subscriber_log import SubscriberLog
    from meshlib.control.control_plane import ControlPlane

    if (options.tls_cert is None) != (options.tls_key is None):
        _say("--tls-cert and --tls-key go together")
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        credentials = _credentials(options)
        plane = ControlPlane(
            options.dir, host=options.host, port=options.port, credentials=credentials, on_change=_print_change
        )
        plane.start()
    except OSError as error:
        _say(str(error))
        return 1
    try:
        if plane.version == 0:
            _say("nothing is served: the first version must be free of errors")
            return 1
        print(f"serving ADS on {plane.address}", flush=True)
        _watch(plane, SubscriberLog(), stop)
    finally:
        plane.stop()
    _say("stopped")
    return 0


def _watch(plane: ControlPlane, log: SubscriberLog, stop: threading.Event) -> None:
    while not stop.wait(0.2):
        for line in log.lines(plane.subscribers()):
            _say(line)


def _print_change(plane: ControlPlane) -> None:
    print_issues(plane.issues, sys.stderr)
    if plane.refused:
        kept = f"version {plane.version} stays in force" if plane.version else "there is no older version"
        _say(f"refused: {kept}")
        return
    counts = ", ".join(f"{count} {type_url.rpartition('.')[2]}" for type_url, count in sorted(plane.resources.items()))
    _say(f"version {plane.version}: {counts}")


def _credentials(options: argparse.Namespace) -> Any:
    if options.tls_cert is None:
        return None
    from meshlib.control.tls import server_credentials

    return server_credentials(options.tls_cert, options.tls_key)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
