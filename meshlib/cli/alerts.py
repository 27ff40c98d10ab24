"""`meshlib alerts`: Prometheus rules for what the mesh measures."""

from __future__ import annotations

import argparse
import sys
from importlib.resources import files

DESCRIPTION = """\
Prometheus alerting rules over the mesh's metrics: configuration that does not arrive, endpoints that are down or
ejected, breakers that open, retry storms, overflow, errors, timeouts. Printed, to be checked in and changed.
"""
EPILOG = """\
examples:
  meshlib alerts > meshlib.rules.yml          then, in prometheus.yml: rule_files: [meshlib.rules.yml]
  promtool check rules meshlib.rules.yml
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG


def run(options: argparse.Namespace) -> int:
    """Print the rules."""
    sys.stdout.write(files("meshlib.telemetry").joinpath("alerts.yml").read_text("utf-8"))
    return 0
