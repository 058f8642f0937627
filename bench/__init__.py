"""Benchmarks: baselines, measurements and their results."""
