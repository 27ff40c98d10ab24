"""Explain: where a request would go and why, decided by the very code calls run through.

from meshlib.explain import Explainer
Explainer.from_files("conf/").explain("GET", "http://payments/charge", {"x-canary": "1"}).to_dict()
"""

from meshlib.explain.explainer import Explainer
from meshlib.explain.explanation import Explanation

__all__ = ["Explainer", "Explanation"]
