"""`Runtime` as people use it: over a dummy bundle, from threads, event loops and iterables."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embed_runtime import (
    ClosedError,
    EmbedRequest,
    EngineError,
    InputError,
    InputTooLongError,
    OverloadedError,
    Runtime,
    RuntimeConfig,
)
from embed_runtime.bundle import read_manifest
from embed_runtime.engines.dummy import DummyEngine
from embed_runtime.manifest import Dimensions, Pooling, Similarity
from embed_runtime.types import Batch, FloatArray, OutputName

MakeBundle = Callable[..., Path]

SECONDS = 30


@pytest.fixture
def runtime(dummy_bundle: MakeBundle) -> Iterator[Runtime]:
    with Runtime(dummy_bundle()) as opened:
        yield opened


class Gate:
    """Holds up the engine while it is shut."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.opened.set()

    def shut(self) -> None:
        self.entered.clear()
        self.opened.clear()

    def __call__(self, *_: object) -> None:
        self.entered.set()
        assert self.opened.wait(SECONDS)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Give every dummy engine that is opened from now on a gate; it starts open."""
    gate = Gate()
    run = DummyEngine.run

    def gated(self: DummyEngine, batch: Batch) -> dict[OutputName, FloatArray]:
        gate()
        return run(self, batch)

    monkeypatch.setattr(DummyEngine, "run", gated)
    return gate


SENTENCE = "the of and time water people number through sentence query vector"
WORDS = SENTENCE.split(" ")
TEXTS = [" ".join(WORDS[: i % 11 + 1]) + f" {i}" for i in range(300)]


class TestEmbed:
    def test_one_text_is_one_vector(self, runtime: Runtime) -> None:
        vector = runtime.embed("the water")
        assert vector.shape == (32,)
        assert vector.dtype == np.float32
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)

    def test_many_texts_keep_their_order(self, runtime: Runtime) -> None:
        vectors = runtime.embed(TEXTS)
        assert vectors.shape == (300, 32)
        for index in (0, 1, 150, 299):
            assert np.array_equal(vectors[index], runtime.embed(TEXTS[index]))

    def test_any_iterable(self, runtime: Runtime) -> None:
        expected = runtime.embed(TEXTS)
        array: Any = np.array(TEXTS)
        for texts in (
            tuple(TEXTS),
            iter(TEXTS),
            (one for one in TEXTS),
            dict.fromkeys(TEXTS),
            array,
        ):
            assert np.array_equal(runtime.embed(texts), expected)

    def test_token_ids(self, runtime: Runtime) -> None:
        [item] = runtime.tokenizer.encode(EmbedRequest(inputs=["the water"]))
        ids = item.input_ids.tolist()
        vectors = runtime.embed([ids, "the water"])
        assert np.array_equal(vectors[0], vectors[1])

    def test_prompts(self, runtime: Runtime) -> None:
        vectors = runtime.embed(["water"], prompt_name="query")
        assert np.array_equal(vectors, runtime.embed(["query: water"]))
        assert np.array_equal(vectors, runtime.embed(["water"], prompt="query: "))
        assert not np.array_equal(vectors, runtime.embed(["water"]))

    def test_dimensions_and_normalize(self, runtime: Runtime) -> None:
        whole = runtime.embed(TEXTS[:5], normalize=False)
        assert np.abs(np.linalg.norm(whole, axis=1) - 1).min() > 1e-3
        assert np.array_equal(runtime.embed(TEXTS[:5], dimensions=8, normalize=False), whole[:, :8])
        cut = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
        assert np.allclose(runtime.embed(TEXTS[:5], dimensions=8), cut, atol=1e-6)

    def test_a_model_that_does_not_normalize(self, dummy_bundle: MakeBundle) -> None:
        with Runtime(dummy_bundle(normalize=False)) as runtime:
            raw = runtime.embed(TEXTS[:5])
            assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 1e-3
            unit = runtime.embed(TEXTS[:5], normalize=True)
            assert np.allclose(unit, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)

    def test_truncate(self, runtime: Runtime) -> None:
        text = " ".join(WORDS * 20)
        tail = " ".join((WORDS * 20)[-62:])
        assert np.array_equal(runtime.embed(text), runtime.embed(" ".join((WORDS * 20)[:62])))
        assert np.array_equal(runtime.embed(text, truncate="START"), runtime.embed(tail))
        with pytest.raises(InputTooLongError, match="maximum context length is 64 tokens"):
            runtime.embed(text, truncate="NONE")

    def test_the_prompt_is_left_out_of_pooling(self, dummy_bundle: MakeBundle) -> None:
        pooling = Pooling(modes=("mean",), include_prompt=False)
        with Runtime(dummy_bundle(pooling=pooling)) as runtime:
            # The dummy pools what is left from position 0 on: three tokens are skipped.
            job = runtime.submit(EmbedRequest(inputs=["water"], prompt="query: "))
            [item] = runtime.tokenizer.encode(EmbedRequest(inputs=["query: water"]))
            assert job.result(SECONDS).num_tokens.tolist() == [item.num_tokens] == [5]
            skipped = runtime.embed("water", prompt="query: ")
            assert not np.array_equal(skipped, runtime.embed("query: water"))

    @pytest.mark.parametrize("texts", [[], (), iter(())])
    def test_no_texts(self, runtime: Runtime, texts: Any) -> None:
        with pytest.raises(InputError, match="at least one is needed"):
            runtime.embed(texts)

    @pytest.mark.parametrize("texts", [None, 5, 1.5])
    def test_not_iterable(self, runtime: Runtime, texts: Any) -> None:
        with pytest.raises(InputError, match="texts must be a text or many texts, not"):
            runtime.embed(texts)

    def test_a_flat_list_of_ids_is_no_list_of_inputs(self, runtime: Runtime) -> None:
        texts: Any = [1, 2, 3]
        with pytest.raises(InputError, match="input 0 must be a text or a flat list"):
            runtime.embed(texts)

    def test_progress_is_shown(self, runtime: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
        runtime.embed(TEXTS, progress=True)
        shown = capsys.readouterr()
        assert "300/300" in shown.err
        assert shown.out == ""

    def test_progress_without_rich(
        self,
        runtime: Runtime,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "rich.console", None)
        runtime.embed(iter(TEXTS), progress=True)
        assert capsys.readouterr().err.endswith("\rembedding 300 texts\n")
        runtime.embed(TEXTS, progress=True)
        assert capsys.readouterr().err.endswith("\rembedding 300/300 texts\n")


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
        self, small: Runtime, runtime: Runtime, wrap: Callable[[list[str]], Any]
    ) -> None:
        expected = runtime.embed(TEXTS)
        assert np.array_equal(small.embed(wrap(TEXTS)), expected)
        assert np.array_equal(asyncio.run(small.aembed(wrap(TEXTS))), expected)
        encoded = small.encode(wrap(TEXTS))
        assert np.array_equal([output.data for output in encoded], expected)

    def test_only_a_few_are_held(self, dummy_bundle: MakeBundle, gate: Gate) -> None:
        read = 0

        def texts() -> Iterator[str]:
            nonlocal read
            for text in TEXTS:
                read += 1
                yield text

        with Runtime(dummy_bundle(), config=RuntimeConfig(max_batch_tokens=5)) as small:
            gate.shut()
            embedding = threading.Thread(target=small.embed, args=(texts(),))
            embedding.start()
            assert gate.entered.wait(SECONDS)
            tokens = small.stats().waiting_tokens
            gate.opened.set()
            embedding.join()
        assert tokens < 3 * 2 * 80
        assert read == 300

    def test_errors_name_the_position_among_all_texts(self, small: Runtime) -> None:
        texts: list[Any] = [*TEXTS[:200], None, *TEXTS[201:]]
        with pytest.raises(InputError, match="input 200 must be a text") as caught:
            small.embed(texts)
        assert caught.value.index == 200
        with pytest.raises(InputError, match="input 200 must be a text") as caught:
            asyncio.run(small.aembed(texts))
        assert caught.value.index == 200
        assert small.stats().waiting_inputs == 0

    def test_waits_where_the_queue_is_full(self, dummy_bundle: MakeBundle) -> None:
        config = RuntimeConfig(max_batch_tokens=100, max_queue_tokens=100)
        with Runtime(dummy_bundle(), config=config) as runtime, ThreadPoolExecutor(4) as pool:
            expected = runtime.embed(TEXTS)
            for found in pool.map(runtime.embed, [TEXTS] * 4):
                assert np.array_equal(found, expected)
            # Awaiting does as well, as long as it is its own work that fills the queue.
            assert np.array_equal(asyncio.run(runtime.aembed(TEXTS)), expected)

    def test_texts_that_raise(self, small: Runtime) -> None:
        def texts() -> Iterator[str]:
            yield from TEXTS
            raise OSError("the disk is gone")

        with pytest.raises(OSError, match="the disk is gone"):
            small.embed(texts())
        assert small.embed(["a"]).shape == (1, 32)


class TestInvariance:
    @settings(
        max_examples=20,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        st.lists(
            st.sampled_from(TEXTS) | st.text(st.characters(codec="utf-8"), max_size=20),
            min_size=1,
            max_size=30,
        )
    )
    def test_neighbours_and_order_change_nothing(self, runtime: Runtime, texts: list[str]) -> None:
        alone = np.stack([runtime.embed(text) for text in texts])
        assert np.array_equal(runtime.embed(texts), alone)
        assert np.array_equal(runtime.embed(texts[::-1]), alone[::-1])
        jobs = [runtime.submit(EmbedRequest(inputs=[text])) for text in texts]
        found = [job.result(SECONDS).vectors[0] for job in jobs]
        assert np.array_equal(found, alone)


class TestEncode:
    def test_one_vector_a_text(self, runtime: Runtime) -> None:
        outputs = runtime.encode(["the water", "people"])
        assert [output.num_tokens for output in outputs] == [4, 3]
        assert np.array_equal([one.data for one in outputs], runtime.embed(["the water", "people"]))

    def test_one_vector_a_token(self, runtime: Runtime) -> None:
        first, second = runtime.encode(["the water", "water the"], task="token_embed")
        assert first.data.shape == (4, 32)
        assert first.num_tokens == 4
        assert np.array_equal(first.data[1], second.data[2])
        [unit] = runtime.encode("the water", task="token_embed", normalize=True)
        assert np.allclose(np.linalg.norm(unit.data, axis=1), 1, atol=1e-6)
        assert not np.allclose(np.linalg.norm(first.data, axis=1), 1, atol=1e-2)


class TestScore:
    def test_pairs(self, dummy_bundle: MakeBundle) -> None:
        with Runtime(dummy_bundle("plain", prompts={})) as runtime:
            self.check_pairs(runtime)

    def check_pairs(self, runtime: Runtime) -> None:
        one = runtime.score("water", "water")
        assert one.shape == (1,)
        assert one[0] == pytest.approx(1, abs=1e-6)
        many = runtime.score("water", ["water", "people", "the time"])
        assert many.shape == (3,)
        assert many.dtype == np.float32
        vectors = runtime.embed(["water", "water", "people", "the time"])
        assert np.allclose(many, vectors[1:] @ vectors[0], atol=1e-6)
        rows = runtime.score(["water", "people"], ["time", "people"])
        assert rows[1] == pytest.approx(1, abs=1e-6)
        assert rows[0] == pytest.approx(float(vectors[0] @ runtime.embed("time")), abs=1e-6)

    @pytest.mark.parametrize(
        ("prompts", "default", "query", "document"),
        [
            ({"query": "q: ", "document": "d: "}, None, "q: ", "d: "),
            ({"query": "q: ", "passage": "p: "}, None, "q: ", "p: "),
            ({"search_query": "q: ", "search_document": "d: "}, None, "q: ", "d: "),
            ({"retrieval.query": "q: ", "retrieval.passage": "p: "}, None, "q: ", "p: "),
            ({"query": "q: "}, "query", "q: ", ""),
            ({"passage": "p: "}, None, "", "p: "),
            ({"title": "t: "}, "title", "t: ", "t: "),
            ({"title": "t: "}, None, "", ""),
        ],
    )
    def test_each_side_gets_the_models_own_prompt(
        self,
        dummy_bundle: MakeBundle,
        prompts: dict[str, str],
        default: str | None,
        query: str,
        document: str,
    ) -> None:
        with Runtime(dummy_bundle(prompts=prompts, default_prompt=default)) as runtime:
            left = runtime.embed(query + "water", prompt="")
            right = runtime.embed(document + "people", prompt="")
            found = runtime.score("water", ["people"])
        assert found[0] == pytest.approx(float(left @ right), abs=1e-6)

    def test_prompts_by_name(self, runtime: Runtime) -> None:
        found = runtime.score(
            "water", ["people"], query_prompt_name="document", document_prompt_name="query"
        )
        left, right = runtime.embed(["document: water", "query: people"])
        assert found[0] == pytest.approx(float(left @ right), abs=1e-6)

    def test_sides_that_do_not_fit(self, runtime: Runtime) -> None:
        with pytest.raises(InputError, match="2 queries and 3 documents cannot be paired"):
            runtime.score(["a", "b"], ["a", "b", "c"])
        with pytest.raises(InputError):
            runtime.score(["a", "b"], "c")
        with pytest.raises(InputError):
            runtime.score([], [])

    @pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean", "manhattan"])
    def test_the_measure_of_the_model(
        self, dummy_bundle: MakeBundle, similarity: Similarity
    ) -> None:
        with Runtime(dummy_bundle(similarity=similarity, normalize=False)) as runtime:
            a, b = runtime.embed(["query: water", "document: people"]).astype(np.float64)
            found = runtime.score("water", "people")[0]
        expected = {
            "cosine": a @ b / np.linalg.norm(a) / np.linalg.norm(b),
            "dot": a @ b,
            "euclidean": -np.linalg.norm(a - b),
            "manhattan": -np.abs(a - b).sum(),
        }
        assert found == pytest.approx(expected[similarity], rel=1e-5)


class TestAsync:
    def test_same_as_embed(self, runtime: Runtime) -> None:
        assert np.array_equal(asyncio.run(runtime.aembed(TEXTS)), runtime.embed(TEXTS))
        assert asyncio.run(runtime.aembed("water")).shape == (32,)
        options: dict[str, Any] = {"prompt_name": "query", "dimensions": 8, "truncate": "START"}
        assert np.array_equal(
            asyncio.run(runtime.aembed(TEXTS[:3], **options)), runtime.embed(TEXTS[:3], **options)
        )

    def test_a_thousand_at_once(self, runtime: Runtime) -> None:
        async def run() -> list[FloatArray]:
            requests = [EmbedRequest(inputs=[TEXTS[i % 300]]) for i in range(1000)]
            results = await asyncio.gather(*map(runtime.asubmit, requests))
            return [result.vectors[0] for result in results]

        expected = runtime.embed(TEXTS)
        for index, vector in enumerate(asyncio.run(run())):
            assert np.array_equal(vector, expected[index % 300])

    def test_two_event_loops(self, runtime: Runtime) -> None:
        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(asyncio.run, runtime.aembed(TEXTS)) for _ in range(2)]
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
        assert threads[0].startswith("embed-tokenizer")
        assert threads[1] == threading.current_thread().name

    def test_errors_arrive(self, runtime: Runtime) -> None:
        with pytest.raises(InputError, match="unknown prompt"):
            asyncio.run(runtime.aembed("a", prompt_name="nothing"))
        request = EmbedRequest(inputs=["water " * 1000], truncate="NONE")
        with pytest.raises(InputTooLongError):
            asyncio.run(runtime.asubmit(request))

    @pytest.mark.parametrize("many", [False, True])
    def test_cancelling_the_task_drops_its_work(
        self, dummy_bundle: MakeBundle, gate: Gate, many: bool
    ) -> None:
        async def run(runtime: Runtime) -> None:
            gate.shut()
            first = asyncio.create_task(runtime.aembed("first"))
            await asyncio.to_thread(gate.entered.wait, SECONDS)
            second = asyncio.create_task(
                runtime.aembed(TEXTS if many else "second")  # several windows, or one text
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

    def test_overload(self, dummy_bundle: MakeBundle, gate: Gate) -> None:
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
                await runtime.aembed(TEXTS)
            with pytest.raises(OverloadedError):
                runtime.submit(EmbedRequest(inputs=["time"]))
            gate.opened.set()
            await asyncio.gather(first, second)

        with Runtime(dummy_bundle(), config=RuntimeConfig(max_queue_tokens=10)) as runtime:
            asyncio.run(run(runtime))


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
        self, dummy_bundle: MakeBundle, gate: Gate
    ) -> None:
        runtime = Runtime(dummy_bundle())
        gate.shut()
        jobs = [runtime.submit(EmbedRequest(inputs=[text])) for text in TEXTS[:50]]
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

    def test_collected(self, dummy_bundle: MakeBundle, gate: Gate) -> None:
        runtime = Runtime(dummy_bundle())
        gate.shut()
        jobs = [runtime.submit(EmbedRequest(inputs=[text])) for text in TEXTS[:9]]
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


def test_a_task_is_prompt_and_adapter(dummy_bundle: MakeBundle) -> None:
    prompts = {"query": "query: ", "match": "", "classify": ""}
    with Runtime(dummy_bundle(prompts=prompts, adapters=("match", "query"))) as runtime:
        names = ["match", "query", "classify", None]
        requests = [EmbedRequest(inputs=["a text", "b"], prompt_name=name) for name in names]
        results = [job.result(SECONDS) for job in [runtime.submit(one) for one in requests]]
        match, query, classify, plain = (result.vectors for result in results)
        prompted = runtime.embed(["query: a text", "query: b"])
        ids = runtime.embed([runtime.tokenizer.encode(requests[0])[0].input_ids.tolist()])
    # Without an adapter the name of an empty prompt changes nothing; with one it changes all.
    assert np.array_equal(classify, plain)
    assert np.array_equal(ids, plain[:1])
    assert not np.isclose(match, plain).all(axis=1).any()
    assert not np.isclose(query, prompted).all(axis=1).any()


def test_config_refuses_limits_nothing_runs_under() -> None:
    for name in ("num_threads", "max_batch_tokens", "max_queue_tokens", "num_tokenizer_threads"):
        options: dict[str, Any] = {name: 0}
        with pytest.raises(InputError, match=f"{name}=0 must be at least 1"):
            RuntimeConfig(**options)


def test_native_dimensions_only(dummy_bundle: MakeBundle) -> None:
    folder = dummy_bundle(dimensions=Dimensions(native=32))
    assert msgspec.json.decode((folder / "manifest.json").read_bytes())
    assert read_manifest(folder).dimensions.matryoshka is None
    with Runtime(folder) as runtime, pytest.raises(InputError, match="only 32"):
        runtime.embed("a", dimensions=8)
