"""`meshlib run -- COMMAND`: a program in the mesh with no change of its code."""

from __future__ import annotations

import argparse
import os
import shutil
import sys

DESCRIPTION = """\
Runs a program with the mesh under its clients and servers: calls of httpx, httpx2, grpc and grpc.aio are routed,
balanced, retried and limited by the mesh; applications under uvicorn, gunicorn and whatever is built on them pass on
trace and deadline, are limited and drain. The program's code does not change. Hosts the mesh does not know are called
as ever.
"""
EPILOG = """\
examples:
  meshlib run --config conf/ -- python app.py
  meshlib run --xds 127.0.0.1:18000 -- uvicorn shop.main:app --port 8000
  meshlib run --consul 127.0.0.1:8500 -- gunicorn shop.wsgi
  GRPC_XDS_BOOTSTRAP=bootstrap.json meshlib run -- python app.py
  meshlib run --config conf/ -- opentelemetry-instrument python app.py
  MESHLIB_CONFIG=conf/ opentelemetry-instrument meshlib run -- python app.py

Each option stands for an environment variable, which a child process inherits:
  --config PATH     MESHLIB_CONFIG          files or folders, Envoy-format or Istio-style, separated by '{pathsep}'
  --xds TARGET      MESHLIB_XDS             an xDS server; GRPC_XDS_BOOTSTRAP(_CONFIG) names one with all its settings
  --consul ADDRESS  MESHLIB_CONSUL          a Consul agent; its other settings come from CONSUL_*
{variables}
A transport or channel that the program makes itself with its own transport= is left alone.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    from meshlib.zero_code.environment import described

    parser.description = DESCRIPTION
    parser.epilog = EPILOG.format(pathsep=os.pathsep, variables=described())
    parser.usage = "meshlib run [--config PATH | --xds TARGET | --consul ADDRESS] [--] COMMAND [ARGUMENT ...]"
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--config", action="append", metavar="PATH", help="file or folder; may be repeated")
    source.add_argument("--xds", metavar="TARGET", help="host:port of an xDS server, plain text")
    source.add_argument("--consul", metavar="ADDRESS", help="host:port or URL of a Consul agent")
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="COMMAND", help="the program and its arguments")


def run(options: argparse.Namespace) -> int:
    """Become the program. Returns only to refuse, with 2: no program, none of that name, no mesh configured."""
    from meshlib.errors import ConfigurationError
    from meshlib.zero_code.environment import check, launched

    program = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not program:
        return _refuse("which program? For example: meshlib run --config conf/ -- python app.py")
    given = {"MESHLIB_CONFIG": os.pathsep.join(options.config or ()), "MESHLIB_XDS": options.xds}
    given["MESHLIB_CONSUL"] = options.consul
    environment = {**os.environ, **{name: value for name, value in given.items() if value}}
    try:
        check(environment)
    except ConfigurationError as error:
        return _refuse(str(error))
    found = shutil.which(program[0])
    if found is None:
        return _refuse(f"{program[0]}: no such program on PATH")
    return os.execve(found, program, launched(environment))  # noqa: S606  running a program is what this is for


def _refuse(why: str) -> int:
    print(f"meshlib run: {why}", file=sys.stderr)
    return 2
