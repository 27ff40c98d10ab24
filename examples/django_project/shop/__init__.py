"""A shop that calls a payments service through the mesh."""
