"""Measurements of single questions, each a command of its own; docs/benchmarks.md has their results."""
