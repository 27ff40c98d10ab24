"""`meshlib COMMAND`: the table of commands, and how one is found and run.

A command is a module with `configure(parser)` and `run(options) -> exit code`. Exit codes: 0 fine, 1 something is wrong
with what was given, 2 the command was called wrongly.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol, cast


class _Command(NamedTuple):
    module: str
    summary: str


class _Module(Protocol):
    def configure(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, options: argparse.Namespace) -> int: ...


COMMANDS: Final = {
    "run": _Command("meshlib.cli.run", "run a program in the mesh, with no change of its code"),
    "check": _Command("meshlib.cli.check", "validate configuration files: what, where, why, and how to fix it"),
    "explain": _Command("meshlib.cli.explain", "where a request would go, and why"),
    "route": _Command("meshlib.cli.route", "test a configuration: a table of requests and where they must go"),
    "control-plane": _Command("meshlib.cli.control_plane", "serve a directory of YAML over xDS, live on change"),
    "alerts": _Command("meshlib.cli.alerts", "Prometheus alerting rules for what the mesh measures"),
    "ca": _Command("meshlib.cli.ca", "a certificate authority for development: mutual TLS in a minute"),
}

EPILOG = """\
examples:
  meshlib run --config conf/ -- python app.py
  meshlib check conf/                        every mistake in a directory, with file and line
  meshlib check --json bootstrap.yaml        the same for programs
  meshlib explain GET http://payments/ --config conf/
  meshlib route test cases.yaml --config conf/
  meshlib control-plane --dir conf/          serve conf/ to Envoy, gRPC and meshlib on 127.0.0.1:18000
  meshlib alerts > meshlib.rules.yml         alerting rules for Prometheus
  meshlib ca init dev-ca                     a certificate authority for development

'meshlib COMMAND --help' explains a command.
"""


def run(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, run the command, return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = next((argument for argument in given if not argument.startswith("-")), "")
    options = _parser(name).parse_args(given)
    command = cast(_Module, importlib.import_module(COMMANDS[options.command].module))
    try:
        return command.run(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # as in `meshlib check conf/ | head`
        return 1
    except ModuleNotFoundError as error:
        print(f"meshlib {options.command}: needs {error.name}: pip install 'meshlib[cli,xds]'", file=sys.stderr)
        return 2


def _parser(chosen: str) -> argparse.ArgumentParser:
    """The parser; only the chosen command's own options are loaded, so that `--help` needs no optional part."""
    parser = argparse.ArgumentParser(
        "meshlib",
        description="A service mesh in the process: tools for its configuration.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    table = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        sub = table.add_parser(name, help=command.summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == chosen:
            cast(_Module, importlib.import_module(command.module)).configure(sub)
    return parser


def _version() -> str:
    from importlib import metadata

    try:
        return f"meshlib {metadata.version('meshlib')}"
    except metadata.PackageNotFoundError:
        return "meshlib (from a source tree)"
