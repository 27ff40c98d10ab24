"""Metrics: what is counted, under which names, and how it leaves the process."""
