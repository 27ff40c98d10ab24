"""Source-tree bridge: makes the top-level folder ``integrations/`` importable as ``meshlib.integrations``.

Only a checkout has this file. A wheel holds the real folder in its place (``pyproject.toml``, ``sources``), so
``import meshlib.integrations.fastapi`` means the same file in a checkout, an editable install and an installed wheel.
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2] / "integrations")]
