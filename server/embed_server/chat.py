"""`ChatRenderer`: conversations to texts, by the chat template of a bundle or of a request."""

import asyncio
import json
import signal
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

from embed_runtime.errors import EngineError, InputError
from embed_server.chat_worker import MAX_SECONDS, Task

_WORKER = (sys.executable, "-P", "-m", "embed_server.chat_worker")


class ChatRenderer:
    """Renders chat templates in one child process, one request after another.

    The process starts with the first conversation. It ends itself where a template takes longer
    than `MAX_SECONDS` of processor time, and the next conversation gets a new one.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed-chat")
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[..., ChatRenderer] | None = None

    async def render(self, task: Task) -> list[str]:
        """Render conversations, one text for each.

        Raises:
            InputError: The template is wrong, rejects the messages, or takes too much.
            EngineError: The child process died.
        """
        try:
            line = json.dumps(task).encode() + b"\n"
        except ValueError as error:  # an integer of thousands of digits
            raise InputError(f"chat_template_kwargs cannot be passed on: {error}") from error
        return await asyncio.wrap_future(self._thread.submit(self._render, line))

    def _render(self, line: bytes) -> list[str]:
        reply, code = self._ask(line)
        if code is not None and code != -signal.SIGPROF:
            reply, code = self._ask(line)  # somebody else ended the process; once is no pattern
        if code is not None:
            raise _died(code)
        # Not orjson: a template may write a lone surrogate, which the tokenizer refuses by name.
        answer = json.loads(reply)
        if "error" in answer:
            raise InputError(f"the chat template failed: {answer['error']}")
        texts: list[str] = answer["texts"]
        return texts

    def _ask(self, line: bytes) -> tuple[bytes, int | None]:
        """Give the process a line; returns its reply, or the code it ended with instead."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
            reply = process.stdout.readline()
        except OSError:
            reply = b""
        if reply.endswith(b"\n"):
            return reply, None
        code = process.wait()
        self._process = None
        if self._end is not None:
            self._end()
        return reply, code

    def _start(self) -> "subprocess.Popen[bytes]":
        self._process = process = subprocess.Popen(
            _WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._end = weakref.finalize(self, _end, process)
        return process


def _died(code: int) -> Exception:
    if code == -signal.SIGPROF:
        reason = f"took more than {MAX_SECONDS} s of processor time"
    elif code < 0:
        reason = f"ended the process that renders it (signal {-code})"
    else:
        return EngineError(f"the process that renders chat templates ended with code {code}")
    return InputError(f"the chat template {reason}; simplify it")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the process of a renderer that is gone."""
    process.kill()
    process.communicate()
