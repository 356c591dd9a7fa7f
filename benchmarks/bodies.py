"""Request bodies of real text, written to files for the load generator."""

import json
from collections.abc import Iterable
from pathlib import Path

from benchmarks.checkpoints import CACHE

# What every server under comparison is told to call its model.
MODEL_NAME = "model"


def write_bodies(name: str, inputs: Iterable[object]) -> Path:
    """Write one request for each input, or list of them, that asks for base64."""
    path = CACHE / "bodies" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for one in inputs:
            body = {"model": MODEL_NAME, "input": one, "encoding_format": "base64"}
            file.write(json.dumps(body) + "\n")
    return path
