"""The measured process: opens one subject and does what the parent's lines of JSON say.

Every environment's interpreter runs this file, so it imports the standard library alone.
"""

import json
import os
import sys
import time
from contextlib import closing
from importlib import import_module
from typing import IO


def main(subject: str) -> None:
    """Open `module:name` with the settings of the first line; then a method call a line.

    Each answer is a line with the seconds it took and what came back.
    """
    answers = _claim_stdout()
    settings = json.loads(sys.stdin.readline())
    module, _, name = subject.partition(":")
    with closing(getattr(import_module(module), name)(**settings)) as opened:
        _answer(answers, seconds=0.0, result=None)
        for line in sys.stdin:
            call = json.loads(line)
            method = getattr(opened, call["method"])
            started = time.perf_counter()
            result = method(**call["arguments"])
            _answer(answers, seconds=time.perf_counter() - started, result=result)


def _claim_stdout() -> IO[str]:
    """Keep standard output for answers; whatever else is printed goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _answer(answers: IO[str], *, seconds: float, result: object) -> None:
    answers.write(json.dumps({"seconds": seconds, "result": result}) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
