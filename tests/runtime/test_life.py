"""The life of a `Runtime`: its limits, its end, and what an engine that fails means for it."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from embed_runtime import ClosedError, EmbedRequest, EngineError, InputError, Runtime, RuntimeConfig
from embed_runtime.engines.dummy import DummyEngine

MakeBundle = Callable[..., Path]

SECONDS = 30


class TestLife:
    def test_closed(self, dummy_bundle: MakeBundle) -> None:
        runtime = Runtime(dummy_bundle())
        runtime.close()
        runtime.close(drain=False)
        with pytest.raises(ClosedError):
            runtime.embed("a")
        with pytest.raises(ClosedError):
            runtime.submit(EmbedRequest(inputs=["a"]))
        with pytest.raises(ClosedError):
            asyncio.run(runtime.aembed("a"))
        with pytest.raises(ClosedError):
            asyncio.run(runtime.aembed("water " * 1000))

    def test_leaving_by_an_error_does_not_wait_for_the_queue(
        self, dummy_bundle: MakeBundle, gate: Any, many_texts: list[str]
    ) -> None:
        runtime = Runtime(dummy_bundle())
        gate.shut()
        jobs = [runtime.submit(EmbedRequest(inputs=[text])) for text in many_texts[:50]]
        assert gate.entered.wait(SECONDS)

        def leave() -> None:
            with runtime:
                raise KeyError("user code")

        leaving = ThreadPoolExecutor(1)
        left = leaving.submit(leave)
        for job in jobs:
            assert isinstance(job.exception(SECONDS), ClosedError)
        gate.opened.set()
        assert isinstance(left.exception(SECONDS), KeyError)
        leaving.shutdown()

    def test_collected(self, dummy_bundle: MakeBundle, gate: Any, many_texts: list[str]) -> None:
        runtime = Runtime(dummy_bundle())
        gate.shut()
        jobs = [runtime.submit(EmbedRequest(inputs=[text])) for text in many_texts[:9]]
        threads = [one for one in threading.enumerate() if one.name.startswith("embed-")]
        dead = weakref.ref(runtime)
        del runtime
        gc.collect()
        assert dead() is None
        gate.opened.set()
        # What was accepted is finished.
        assert all(job.result(SECONDS) for job in jobs)
        for thread in threads:
            thread.join(SECONDS)
            assert not thread.is_alive()

    def test_engine_errors_arrive(
        self, dummy_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Runtime(dummy_bundle()) as runtime:

            def fail(*_: object) -> None:
                raise RuntimeError("device lost")

            monkeypatch.setattr(DummyEngine, "run", fail)
            with pytest.raises(EngineError, match="device lost"):
                runtime.embed(["a", "b"])
            with pytest.raises(EngineError, match="device lost"):
                asyncio.run(runtime.aembed("a"))
            assert runtime.stats().failures_in_a_row == 2

    def test_results_count_the_tokens_that_were_read(self, runtime: Runtime) -> None:
        request = EmbedRequest(inputs=["the water", "", [7], "water " * 200])
        result = runtime.submit(request).result(SECONDS)
        assert result.num_tokens.tolist() == [4, 2, 1, 64]
        assert result.offsets.tolist() == [0, 1, 2, 3, 4]


def test_config_refuses_limits_nothing_runs_under() -> None:
    for name in ("num_threads", "max_batch_tokens", "max_queue_tokens", "num_tokenizer_threads"):
        options: dict[str, Any] = {name: 0}
        with pytest.raises(InputError, match=f"{name}=0 must be at least 1"):
            RuntimeConfig(**options)
