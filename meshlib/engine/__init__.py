"""The engine: compiles snapshots to plans and decides, per call, what happens. It acts on nothing."""
