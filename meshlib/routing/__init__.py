"""Routing: the route tables of the model compiled into predicates and rewrites. Pure: no clock, no I/O."""
