"""Measures this project against others on one machine, in one run: `python -m benchmarks`."""
