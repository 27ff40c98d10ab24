"""Policies: retry, back-off, budgets, thresholds, breaker, outlier detection, rate limits, deadlines.

They decide and do nothing else: each gets `now` (monotonic seconds) and an `rng` with `.random()`, and returns values.
What they learn lives in the state cells or in an object of their own, safe under threads. `shared_limit` is the one
that acts (it asks a store) and is therefore kept apart: nothing here imports it.
"""
