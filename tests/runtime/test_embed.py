"""`Runtime.embed` and `encode` as people use them: what is asked for, and what comes back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embed_runtime import EmbedRequest, InputError, InputTooLongError, Runtime
from embed_runtime.bundle import read_manifest
from embed_runtime.manifest import Dimensions, Pooling

MakeBundle = Callable[..., Path]

SECONDS = 30
SENTENCE = "the of and time water people number through sentence query vector"
WORDS = SENTENCE.split(" ")
PHRASES = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


class TestEmbed:
    def test_one_text_is_one_vector(self, runtime: Runtime) -> None:
        vector = runtime.embed("the water")
        assert vector.shape == (32,)
        assert vector.dtype == np.float32
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)

    def test_many_texts_keep_their_order(self, runtime: Runtime, many_texts: list[str]) -> None:
        vectors = runtime.embed(many_texts)
        assert vectors.shape == (300, 32)
        for index in (0, 1, 150, 299):
            assert np.array_equal(vectors[index], runtime.embed(many_texts[index]))

    def test_any_iterable(self, runtime: Runtime, many_texts: list[str]) -> None:
        expected = runtime.embed(many_texts)
        array: Any = np.array(many_texts)
        for texts in (
            tuple(many_texts),
            iter(many_texts),
            (one for one in many_texts),
            dict.fromkeys(many_texts),
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

    def test_dimensions_and_normalize(self, runtime: Runtime, many_texts: list[str]) -> None:
        whole = runtime.embed(many_texts[:5], normalize=False)
        assert np.abs(np.linalg.norm(whole, axis=1) - 1).min() > 1e-3
        assert np.array_equal(
            runtime.embed(many_texts[:5], dimensions=8, normalize=False), whole[:, :8]
        )
        cut = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
        assert np.allclose(runtime.embed(many_texts[:5], dimensions=8), cut, atol=1e-6)

    def test_a_model_that_does_not_normalize(
        self, dummy_bundle: MakeBundle, many_texts: list[str]
    ) -> None:
        with Runtime(dummy_bundle(normalize=False)) as runtime:
            raw = runtime.embed(many_texts[:5])
            assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 1e-3
            unit = runtime.embed(many_texts[:5], normalize=True)
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

    def test_progress_is_shown(
        self, runtime: Runtime, capsys: pytest.CaptureFixture[str], many_texts: list[str]
    ) -> None:
        runtime.embed(many_texts, progress=True)
        shown = capsys.readouterr()
        assert "300/300" in shown.err
        assert shown.out == ""

    def test_progress_without_rich(
        self,
        runtime: Runtime,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        many_texts: list[str],
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "rich.console", None)
        runtime.embed(iter(many_texts), progress=True)
        assert capsys.readouterr().err.endswith("\rembedding 300 texts\n")
        runtime.embed(many_texts, progress=True)
        assert capsys.readouterr().err.endswith("\rembedding 300/300 texts\n")


class TestInvariance:
    @settings(
        max_examples=20,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        st.lists(
            PHRASES | st.text(st.characters(codec="utf-8"), max_size=20),
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


def test_native_dimensions_only(dummy_bundle: MakeBundle) -> None:
    folder = dummy_bundle(dimensions=Dimensions(native=32))
    assert msgspec.json.decode((folder / "manifest.json").read_bytes())
    assert read_manifest(folder).dimensions.matryoshka is None
    with Runtime(folder) as runtime, pytest.raises(InputError, match="only 32"):
        runtime.embed("a", dimensions=8)
