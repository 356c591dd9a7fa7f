"""Long texts in pieces, and chunks of one text read together."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embed_runtime import EmbedRequest, InputError, InputTooLongError, NotFiniteError, Runtime
from embed_runtime.chunking import PieceGathering, split
from embed_runtime.engines.dummy import DummyEngine
from embed_runtime.manifest import Dense, Dimensions, Pooling
from embed_runtime.plan import Plan
from embed_runtime.types import Batch, FloatArray, TokenizedInput

MakeBundle = Callable[..., Path]
IDS = [7 + number % 90 for number in range(150)]


def weighted_mean(runtime: Runtime, ids: list[int], **options: Any) -> FloatArray:
    """Say once more, slowly, what the vector of a long input is: a chunk has 64 tokens."""
    pieces = [ids[start : start + 64] for start in range(0, len(ids), 64)]
    total = sum(
        len(piece) / len(ids) * runtime.embed([piece], **options)[0].astype(np.float64)
        for piece in pieces
    )
    return np.asarray(total)


class TestPieces:
    def test_the_example_of_the_contract(self) -> None:
        lengths = np.array([512, 128], np.int32)
        plan = Plan(output="embedding", is_unit=True)
        gathering = PieceGathering(plan, lengths, owners=np.array([0, 0], np.int32))
        for index, vector in enumerate(([[1.0, 0.0]], [[0.6, 0.8]])):
            gathering.receive(index, np.array(vector, np.float32), np.empty(0, np.int32))
        result = gathering.result()
        assert np.allclose(result.vectors, [[0.98521, 0.17134]], atol=1e-5)
        assert (result.num_tokens.tolist(), result.offsets.tolist()) == ([640], [0, 1])

    @pytest.mark.parametrize("num_ids", [1, 64, 65, 128, 150])
    @pytest.mark.parametrize("options", [{}, {"dimensions": 8}])
    def test_a_long_input_is_the_mean_of_its_pieces(
        self, runtime: Runtime, num_ids: int, options: dict[str, Any]
    ) -> None:
        ids = IDS[:num_ids]
        [vector] = runtime.embed([ids], chunk=True, **options)
        mean = weighted_mean(runtime, ids, **options)
        assert np.allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)

    def test_without_unit_vectors_the_mean_stays(self, runtime: Runtime) -> None:
        [vector] = runtime.embed([IDS], chunk=True, normalize=False)
        assert np.allclose(vector, weighted_mean(runtime, IDS, normalize=False), atol=1e-6)

    def test_special_tokens_and_prompt_are_at_the_ends_only(self, runtime: Runtime) -> None:
        text = "word " * 100
        ids = runtime.tokenizer.encode_text("query: " + text)
        expected = runtime.embed([ids], chunk=True)[0]
        assert np.array_equal(runtime.embed(text, chunk=True, prompt_name="query"), expected)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
    @given(st.lists(st.integers(1, 150), min_size=1, max_size=6))
    def test_neighbours_do_not_matter(self, runtime: Runtime, lengths: list[int]) -> None:
        inputs = [IDS[-length:] for length in lengths]
        together = runtime.embed(inputs, chunk=True)
        for one, vector in zip(inputs, together, strict=True):
            assert np.array_equal(runtime.embed([one], chunk=True)[0], vector)
        short = [one for one in inputs if len(one) <= 64]
        if short:
            assert np.array_equal(runtime.embed(short, chunk=True), runtime.embed(short))

    def test_async_and_submitted_requests_agree(self, runtime: Runtime) -> None:
        request = EmbedRequest(inputs=[IDS, IDS[:9]], chunk=True, truncate="NONE")
        result = runtime.submit(request).result()
        assert result.num_tokens.tolist() == [150, 9]
        assert np.array_equal(result.vectors, runtime.embed(request.inputs, chunk=True))
        awaited = asyncio.run(runtime.aembed(request.inputs, chunk=True))
        assert np.array_equal(result.vectors, awaited)

    def test_it_is_cut_at_its_own_limit(self, runtime: Runtime) -> None:
        request = EmbedRequest(inputs=[IDS], chunk=True, max_tokens=100)
        cut = runtime.submit(request).result()
        assert np.array_equal(cut.vectors, runtime.embed([IDS[:100]], chunk=True))
        with pytest.raises(InputTooLongError, match=r"at least 150 tokens.*is 100 tokens"):
            runtime.submit(EmbedRequest(inputs=[IDS], chunk=True, max_tokens=100, truncate="NONE"))

    def test_a_piece_that_is_not_finite_is_named_by_its_input(
        self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = DummyEngine.run

        def run_badly(engine: DummyEngine, batch: Batch) -> Any:
            outputs = run(engine, batch)
            outputs["embedding"][batch.lengths == 22] = np.nan
            return outputs

        monkeypatch.setattr(DummyEngine, "run", run_badly)
        with pytest.raises(NotFiniteError, match=r"input 1$"):
            runtime.embed(["a", IDS], chunk=True)

    def test_a_prompt_that_is_not_pooled_is_skipped_in_the_first_piece(self) -> None:
        ids = np.arange(10, dtype=np.int32)
        pieces, owners = split([TokenizedInput(input_ids=ids, num_skipped=3)], 4)
        assert [piece.num_skipped for piece in pieces] == [3, 0, 0]
        assert [piece.input_ids.tolist() for piece in pieces] == [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
            [8, 9],
        ]
        assert owners.tolist() == [0, 0, 0]
        with pytest.raises(InputError, match="the prompt has 4 tokens"):
            split([TokenizedInput(input_ids=ids, num_skipped=4)], 4)


class TestLateChunking:
    CHUNKS = ("the model", "a long text about words", "search")

    @pytest.mark.parametrize("prompt", ["", "query: "])
    def test_vectors_are_means_of_the_whole_texts_tokens(
        self, runtime: Runtime, prompt: str
    ) -> None:
        tokenizer = runtime.tokenizer
        contents = [
            tokenizer.encode_text(text, add_special_tokens=False)
            for text in (prompt + self.CHUNKS[0], *self.CHUNKS[1:])
        ]
        first, *_, last = tokenizer.encode_text("a")
        spans = [[first, *contents[0]], contents[1], [*contents[2], last]]
        whole = [token_id for span in spans for token_id in span]
        [tokens] = runtime.encode([whole], task="token_embed")
        bounds = np.cumsum([0, *map(len, spans)])
        means = np.stack([tokens.data[a:b].mean(axis=0) for a, b in pairwise(bounds)])
        vectors = runtime.embed(self.CHUNKS, late_chunking=True, prompt=prompt, normalize=False)
        assert np.allclose(vectors, means, atol=1e-6)
        unit = runtime.embed(self.CHUNKS, late_chunking=True, prompt=prompt)
        norms = np.linalg.norm(means, axis=1, keepdims=True)
        assert np.allclose(unit, means / norms, atol=1e-6)
        cut = runtime.embed(self.CHUNKS, late_chunking=True, prompt=prompt, dimensions=8)
        norms = np.linalg.norm(means[:, :8], axis=1, keepdims=True)
        assert np.allclose(cut, means[:, :8] / norms, atol=1e-6)

    def test_tokens_are_counted_once(self, runtime: Runtime) -> None:
        request = EmbedRequest(inputs=[[7, 8], [9]], late_chunking=True)
        assert runtime.submit(request).result().num_tokens.tolist() == [3, 2]

    def test_chunks_that_are_too_long_together_are_refused(self, runtime: Runtime) -> None:
        with pytest.raises(InputTooLongError, match="66 tokens together"):
            runtime.embed([IDS[:60], IDS[:4]], late_chunking=True)

    @pytest.mark.parametrize("texts", [["a", ""], ["a", []], ["a", [10**6]], ["a", "\ud800"], []])
    def test_every_chunk_is_checked(self, runtime: Runtime, texts: list[Any]) -> None:
        with pytest.raises(InputError, match=r"input 1|no texts"):
            runtime.embed(texts, late_chunking=True)

    @pytest.mark.parametrize(
        "fields",
        [
            {"pooling": Pooling(modes=("cls",))},
            {"outputs": ("embedding", "pooled")},
            {
                "heads": (Dense(in_features=32, out_features=16, bias=True, activation="tanh"),),
                "dimensions": Dimensions(native=16),
            },
        ],
    )
    def test_models_that_do_not_average_tokens_refuse(
        self, dummy_bundle: MakeBundle, fields: dict[str, Any]
    ) -> None:
        with (
            Runtime(dummy_bundle(**fields)) as runtime,
            pytest.raises(InputError, match="late chunking needs"),
        ):
            runtime.embed(["a"], late_chunking=True)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"chunk": True, "task": "token_embed"}, "whole inputs"),
        ({"late_chunking": True, "task": "token_embed"}, "whole inputs"),
        ({"late_chunking": True, "chunk": True}, "cannot both"),
    ],
)
def test_what_does_not_go_together(runtime: Runtime, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        runtime.submit(EmbedRequest(inputs=["a"], **fields))
