"""The commands of `python -m benchmarks`, one file each: `HELP`, `add_arguments` and `run`."""
