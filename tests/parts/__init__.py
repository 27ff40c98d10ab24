"""Helpers of the tests: which outside parts this machine has, and real servers started and stopped for one test."""
