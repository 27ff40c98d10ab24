"""What `meshlib run` puts before a program's path: Python imports it at start-up, before the program.

Python imports one `sitecustomize` only, so the one that would have come without us is run as well.
"""

# ruff: noqa: INP001  no package: a folder on the path

import importlib.machinery
import importlib.util
import os
import sys

from meshlib.zero_code.process import install

_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  before every program: import next to nothing


def _next() -> None:
    """Run the `sitecustomize` behind this one, if there is one."""
    rest = [entry for entry in sys.path if os.path.abspath(entry) != _HERE]  # noqa: PTH100
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


install()
_next()
