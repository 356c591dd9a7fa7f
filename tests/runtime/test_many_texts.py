"""Many texts: in windows through the queue, in their order, never all at once."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embed_runtime import InputError, Runtime, RuntimeConfig
from embed_runtime.scheduler import Scheduler

HeldTokens = Callable[..., int]
MakeBundle = Callable[..., Path]

SECONDS = 30


class TestWindows:
    """Many texts go through the queue a window at a time."""

    @pytest.fixture
    def small(self, dummy_bundle: MakeBundle) -> Iterator[Runtime]:
        """Open a runtime whose windows have about 80 tokens."""
        config = RuntimeConfig(max_batch_tokens=5)
        with Runtime(dummy_bundle("small"), config=config) as opened:
            yield opened

    @pytest.mark.parametrize("wrap", [list, iter])
    def test_results_are_gathered_in_order(
        self,
        small: Runtime,
        runtime: Runtime,
        wrap: Callable[[list[str]], Any],
        many_texts: list[str],
    ) -> None:
        expected = runtime.embed(many_texts)
        assert np.array_equal(small.embed(wrap(many_texts)), expected)
        assert np.array_equal(asyncio.run(small.aembed(wrap(many_texts))), expected)
        encoded = small.encode(wrap(many_texts))
        assert np.array_equal([output.data for output in encoded], expected)

    @pytest.fixture
    def held_tokens(self, dummy_bundle: MakeBundle, gate: Any) -> HeldTokens:
        """Embed texts, in windows of about 80 tokens; tell how many wait during the first batch."""

        def held_tokens(texts: Iterable[str], **options: Any) -> int:
            with Runtime(dummy_bundle(), config=RuntimeConfig(max_batch_tokens=5)) as small:
                gate.shut()
                embedding = threading.Thread(target=small.embed, args=(texts,), kwargs=options)
                embedding.start()
                assert gate.entered.wait(SECONDS)
                tokens = small.stats().waiting_tokens
                gate.opened.set()
                embedding.join()
            return tokens

        return held_tokens

    def test_only_a_few_are_held(self, held_tokens: HeldTokens, many_texts: list[str]) -> None:
        read = 0

        def texts() -> Iterator[str]:
            nonlocal read
            for text in many_texts:
                read += 1
                yield text

        assert held_tokens(texts()) < 3 * 2 * 80
        assert read == 300

    def test_prompts_and_special_tokens_count(self, held_tokens: HeldTokens) -> None:
        texts = [str(number) for number in range(300)]
        assert held_tokens(texts, prompt="water " * 10) < 3 * 2 * 80

    def test_space_that_somebody_else_took_costs_nothing(
        self,
        dummy_bundle: MakeBundle,
        runtime: Runtime,
        many_texts: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Every few windows one is refused, with half of its vectors taken from the cache."""
        expected = runtime.embed(many_texts)
        config = RuntimeConfig(max_batch_tokens=5, max_cache_bytes=1 << 20)
        with Runtime(dummy_bundle("small"), config=config) as small:
            small.embed(many_texts[::2])
            answers = cycle([True, True, False])

            def has_space(_scheduler: Scheduler, _num_tokens: int) -> bool:
                return next(answers)

            monkeypatch.setattr(Scheduler, "_has_space", has_space)
            assert np.array_equal(asyncio.run(small.aembed(many_texts)), expected)

    def test_errors_name_the_position_among_all_texts(
        self, small: Runtime, many_texts: list[str]
    ) -> None:
        texts: list[Any] = [*many_texts[:200], None, *many_texts[201:]]
        with pytest.raises(InputError, match="input 200 must be a text") as caught:
            small.embed(texts)
        assert caught.value.index == 200
        with pytest.raises(InputError, match="input 200 must be a text") as caught:
            asyncio.run(small.aembed(texts))
        assert caught.value.index == 200
        assert small.stats().waiting_inputs == 0

    def test_waits_where_the_queue_is_full(
        self, dummy_bundle: MakeBundle, many_texts: list[str]
    ) -> None:
        config = RuntimeConfig(max_batch_tokens=100, max_queue_tokens=100)
        with Runtime(dummy_bundle(), config=config) as runtime, ThreadPoolExecutor(4) as pool:
            expected = runtime.embed(many_texts)
            for found in pool.map(runtime.embed, [many_texts] * 4):
                assert np.array_equal(found, expected)
            # Awaiting does as well, as long as it is its own work that fills the queue.
            assert np.array_equal(asyncio.run(runtime.aembed(many_texts)), expected)

    def test_texts_that_raise(self, small: Runtime, many_texts: list[str]) -> None:
        def texts() -> Iterator[str]:
            yield from many_texts
            raise OSError("the disk is gone")

        with pytest.raises(OSError, match="the disk is gone"):
            small.embed(texts())
        assert small.embed(["a"]).shape == (1, 32)
