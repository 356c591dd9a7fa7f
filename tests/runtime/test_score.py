"""`Runtime.score`: pairs, the prompt of each side, and the measure of the model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embed_runtime import InputError, Runtime
from embed_runtime.manifest import Similarity

MakeBundle = Callable[..., Path]


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
        with pytest.raises(InputError, match="document 1 must be a text"):
            runtime.score("a", ["a", 5])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
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
