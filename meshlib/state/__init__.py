"""State: mutable cells that outlive plans, keyed by (cluster, endpoint).

No lock is taken: every change is one atomic operation of a dict or list, so that cells are safe under threads and
survive a fork taken at any moment. Counts are sizes of containers or sums of per-thread numbers, never a shared `+=`.
"""
