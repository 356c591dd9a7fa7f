"""`aembed` and `asubmit`: the same vectors, cancelled tasks, and a queue that is full."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embed_runtime import (
    EmbedRequest,
    InputError,
    InputTooLongError,
    OverloadedError,
    Runtime,
    RuntimeConfig,
)
from embed_runtime.types import FloatArray

MakeBundle = Callable[..., Path]

SECONDS = 30


class TestAsync:
    def test_same_as_embed(self, runtime: Runtime, many_texts: list[str]) -> None:
        assert np.array_equal(asyncio.run(runtime.aembed(many_texts)), runtime.embed(many_texts))
        assert asyncio.run(runtime.aembed("water")).shape == (32,)
        options: dict[str, Any] = {"prompt_name": "query", "dimensions": 8, "truncate": "START"}
        assert np.array_equal(
            asyncio.run(runtime.aembed(many_texts[:3], **options)),
            runtime.embed(many_texts[:3], **options),
        )

    def test_a_thousand_at_once(self, runtime: Runtime, many_texts: list[str]) -> None:
        async def run() -> list[FloatArray]:
            requests = [EmbedRequest(inputs=[many_texts[i % 300]]) for i in range(1000)]
            results = await asyncio.gather(*map(runtime.asubmit, requests))
            return [result.vectors[0] for result in results]

        expected = runtime.embed(many_texts)
        for index, vector in enumerate(asyncio.run(run())):
            assert np.array_equal(vector, expected[index % 300])

    def test_two_event_loops(self, runtime: Runtime, many_texts: list[str]) -> None:
        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(asyncio.run, runtime.aembed(many_texts)) for _ in range(2)]
            found = [one.result(SECONDS) for one in running]
        assert np.array_equal(found[0], found[1])

    def test_long_texts_are_tokenized_off_the_event_loop(
        self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        threads: list[str] = []
        encode = runtime.tokenizer.encode

        def noting(*args: Any, **options: Any) -> Any:
            threads.append(threading.current_thread().name)
            return encode(*args, **options)

        monkeypatch.setattr(runtime.tokenizer, "encode", noting)
        asyncio.run(runtime.aembed(["short", "water " * 1000]))
        asyncio.run(runtime.aembed(["short"]))
        asyncio.run(runtime.aembed(["short"] * 20, prompt="as long as twenty texts: " * 3))
        asyncio.run(runtime.aembed([""] * 300))
        assert threads[1] == threading.current_thread().name
        assert all(threads[at].startswith("embed-tokenizer") for at in (0, 2, 3))

    def test_what_waits_for_the_tokenizer_is_bounded(
        self, dummy_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def run(runtime: Runtime) -> None:
            encode, goes_on = runtime.tokenizer.encode, threading.Event()

            def encode_late(*args: Any, **options: Any) -> Any:
                assert goes_on.wait(SECONDS)
                return encode(*args, **options)

            monkeypatch.setattr(runtime.tokenizer, "encode", encode_late)
            large = EmbedRequest(inputs=["water " * 1000] * 20)  # more than the queue, but alone
            first = asyncio.create_task(runtime.asubmit(large))
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError, match="wait for the tokenizer"):
                await runtime.asubmit(large)
            goes_on.set()
            assert len((await first).num_tokens) == 20
            await runtime.asubmit(large)

        with Runtime(dummy_bundle(), config=RuntimeConfig(max_queue_tokens=100)) as runtime:
            asyncio.run(run(runtime))

    def test_errors_arrive(self, runtime: Runtime) -> None:
        with pytest.raises(InputError, match="unknown prompt"):
            asyncio.run(runtime.aembed("a", prompt_name="nothing"))
        request = EmbedRequest(inputs=["water " * 1000], truncate="NONE")
        with pytest.raises(InputTooLongError):
            asyncio.run(runtime.asubmit(request))

    @pytest.mark.parametrize("many", [False, True])
    def test_cancelling_the_task_drops_its_work(
        self, dummy_bundle: MakeBundle, gate: Any, many: bool, many_texts: list[str]
    ) -> None:
        async def run(runtime: Runtime) -> None:
            gate.shut()
            first = asyncio.create_task(runtime.aembed("first"))
            await asyncio.to_thread(gate.entered.wait, SECONDS)
            second = asyncio.create_task(
                runtime.aembed(many_texts if many else "second")  # several windows, or one text
            )
            while not runtime.stats().waiting_inputs:
                await asyncio.sleep(0)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            assert runtime.stats().waiting_inputs == 0
            gate.opened.set()
            assert (await first).shape == (32,)

        config = RuntimeConfig(max_batch_tokens=50)
        with Runtime(dummy_bundle(), config=config) as runtime:
            asyncio.run(run(runtime))

    def test_overload(self, dummy_bundle: MakeBundle, gate: Any, many_texts: list[str]) -> None:
        async def run(runtime: Runtime) -> None:
            gate.shut()
            first = asyncio.create_task(runtime.aembed("water"))
            await asyncio.to_thread(gate.entered.wait, SECONDS)
            second = asyncio.create_task(runtime.aembed("people " * 6))
            while not runtime.stats().waiting_inputs:
                await asyncio.sleep(0)
            with pytest.raises(OverloadedError, match="max_queue_tokens=10"):
                await runtime.aembed("time")
            with pytest.raises(OverloadedError):
                await runtime.aembed(many_texts)
            with pytest.raises(OverloadedError):
                runtime.submit(EmbedRequest(inputs=["time"]))
            gate.opened.set()
            await asyncio.gather(first, second)

        with Runtime(dummy_bundle(), config=RuntimeConfig(max_queue_tokens=10)) as runtime:
            asyncio.run(run(runtime))
