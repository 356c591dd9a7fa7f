"""The package as a whole: what importing it loads, what it exports, and life after a fork."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import embed_runtime
from embed_runtime.engines import backend_names, get_backend

ENGINE_LIBRARIES = {"onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "torch", "transformers"}
OTHER_LIBRARIES = {"onnx", "fastapi", "starlette", "uvicorn", "pydantic", "rich", "tqdm"}


def loaded_after(statement: str) -> set[str]:
    """List the top-level modules a fresh interpreter has after a statement."""
    code = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules: list[str] = json.loads(done.stdout)
    return {module.partition(".")[0] for module in modules}


def test_importing_loads_no_engine_library() -> None:
    loaded = loaded_after("import embed_runtime")
    assert not loaded & (ENGINE_LIBRARIES | OTHER_LIBRARIES)
    own = loaded - loaded_after("import numpy, msgspec, tokenizers") - set(sys.stdlib_module_names)
    assert own == {"embed_runtime"}


def test_opening_a_bundle_loads_its_own_engine_only(dummy_bundle: Callable[..., Path]) -> None:
    loaded = loaded_after(
        f"import embed_runtime; embed_runtime.Runtime({str(dummy_bundle())!r}).embed('a')"
    )
    assert not loaded & (ENGINE_LIBRARIES | OTHER_LIBRARIES)


def test_public_names() -> None:
    public = {
        name
        for name, value in vars(embed_runtime).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(embed_runtime.__all__)
    assert embed_runtime.__all__ == sorted(embed_runtime.__all__)


@pytest.mark.parametrize("name", backend_names())
def test_every_backend_can_be_asked(name: str) -> None:
    backend = get_backend(name)
    available = backend.probe()
    assert available.can_run == (not available.reason)
    assert "\n" not in available.reason
    assert backend.max_batch_tokens >= 1
    for precision in ("fp32", "fp16", "bf16", "int8"):
        if backend.precision(precision) is not None:
            assert backend.dialect(precision)


def test_a_runtime_says_so_when_it_was_forked(dummy_bundle: Callable[..., Path]) -> None:
    code = f"""
import asyncio
import os
from embed_runtime import ClosedError, EmbedRequest, Runtime
runtime = Runtime({str(dummy_bundle())!r})
long = "water " * 1000
asyncio.run(runtime.aembed(long))
child = os.fork()
if not child:
    for embed in (
        lambda: runtime.embed("a"),
        lambda: asyncio.run(runtime.aembed(long)),
        lambda: asyncio.run(runtime.asubmit(EmbedRequest(inputs=[long]))),
    ):
        try:
            embed()
        except ClosedError as error:
            os.write(1, str(error).encode())
    os._exit(0)
os.waitpid(child, 0)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.count("open it after the fork") == 3


def test_a_process_ends_though_nobody_closed_its_runtime(
    dummy_bundle: Callable[..., Path],
) -> None:
    code = f"""
from embed_runtime import EmbedRequest, Runtime
runtime = Runtime({str(dummy_bundle())!r})
jobs = [runtime.submit(EmbedRequest(inputs=[str(number)])) for number in range(100)]
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("", "")
