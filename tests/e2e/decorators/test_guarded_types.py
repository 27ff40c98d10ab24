"""The decorated function keeps its type: what mypy reveals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAM = """
from meshlib import Mesh

mesh = Mesh.static({})

@mesh.guard("payments", exclude=KeyError, headers=lambda amount, currency="": {"x-currency": currency})
def charge(amount: int, *, currency: str = "EUR") -> str:
    return f"{amount} {currency}"

@mesh.guard("payments")
async def refund(amount: int) -> bytes:
    return b""

class Ledger:
    @mesh.guard("payments")
    def book(self, amount: int) -> float:
        return 1.0

async def main() -> None:
    reveal_type(charge)
    reveal_type(await refund(1))
    reveal_type(Ledger().book(1))
    charge("x")
"""
REVEALED = (
    'note: Revealed type is "def (amount: int, *, currency: str =) -> str"',
    'note: Revealed type is "bytes"',
    'note: Revealed type is "float"',
    'error: Argument 1 to "charge" has incompatible type "str"; expected "int"  [arg-type]',
)


def test_mypy_reveals_the_functions_own_types(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    argv = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(program)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)
    lines = [line.partition(": ")[2] for line in done.stdout.replace("builtins.", "").splitlines()]
    assert tuple(line for line in lines if line) == REVEALED, done.stdout + done.stderr
