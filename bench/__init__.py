"""Benchmarks: what the package is measured against, how, and what came out.

``python -m bench run`` measures, ``compare`` says whether two versions differ, ``report`` writes docs/benchmarks.md.
``pytest bench --benchmark-only`` runs the microbenchmarks; ``bench/device/run.sh`` everything there is on a GPU.
"""
