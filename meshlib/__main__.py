"""`python -m meshlib COMMAND`: the `meshlib` command, where its script is not on the path."""

import sys

from meshlib.cli.main import run

if __name__ == "__main__":
    sys.exit(run())
