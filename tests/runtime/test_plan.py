"""What a request asks of a bundle, and every way in which it may ask too much."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from embed_runtime import EmbedRequest, InputError
from embed_runtime.bundle import read_manifest
from embed_runtime.manifest import Dimensions, Manifest
from embed_runtime.plan import make_plan
from embed_runtime.types import NO_ADAPTER


@pytest.fixture
def manifest(dummy_bundle: Callable[..., Path]) -> Manifest:
    """Describe a model that normalizes, with 32 dimensions and two prompts."""
    return read_manifest(dummy_bundle())


def plan(manifest: Manifest, **fields: Any) -> Any:
    return make_plan(EmbedRequest(inputs=["a"], **fields), manifest)


@pytest.mark.parametrize(
    ("model_normalizes", "normalize", "dimensions", "output", "finishes"),
    [
        # The graph has done all there is to do ...
        (True, None, None, "embedding", False),
        (True, True, None, "embedding", False),
        (True, True, 32, "embedding", False),
        (False, None, None, "embedding", False),
        (False, False, None, "embedding", False),
        # ... or too much, ...
        (True, False, None, "pooled", False),
        (True, False, 8, "pooled", False),
        # ... or values are cut off, ...
        (True, None, 8, "embedding", True),
        (True, True, 8, "embedding", True),
        (False, None, 8, "embedding", False),
        # ... or not enough.
        (False, True, None, "embedding", True),
        (False, True, 8, "embedding", True),
    ],
)
def test_who_normalizes(
    manifest: Manifest,
    model_normalizes: bool,
    normalize: bool | None,
    dimensions: int | None,
    output: str,
    finishes: bool,
) -> None:
    manifest = msgspec.structs.replace(manifest, normalize=model_normalizes)
    found = plan(manifest, normalize=normalize, dimensions=dimensions)
    assert (found.output, found.normalize) == (output, finishes)
    assert found.dimensions == (8 if dimensions == 8 else None)


def test_token_vectors(manifest: Manifest) -> None:
    found = plan(manifest, task="token_embed")
    assert (found.output, found.normalize) == ("token_embeddings", False)
    assert plan(manifest, task="token_embed", normalize=True).normalize
    with pytest.raises(InputError, match="dimensions cannot be chosen"):
        plan(manifest, task="token_embed", dimensions=8)


class TestPrompts:
    def test_by_name(self, manifest: Manifest) -> None:
        assert plan(manifest).prompt == ""
        assert plan(manifest, prompt_name="query").prompt == "query: "
        assert plan(manifest, prompt="as given ").prompt == "as given "

    def test_default(self, manifest: Manifest) -> None:
        manifest = msgspec.structs.replace(manifest, default_prompt="document")
        assert plan(manifest).prompt == "document: "
        assert plan(manifest, prompt_name="query").prompt == "query: "
        assert plan(manifest, prompt="").prompt == ""

    def test_unknown(self, manifest: Manifest) -> None:
        words = "unknown prompt 'title'; this model has 'document', 'query'"
        with pytest.raises(InputError, match=words) as caught:
            plan(manifest, prompt_name="title")
        assert caught.value.param == "prompt_name"
        with pytest.raises(InputError, match="this model has none"):
            plan(msgspec.structs.replace(manifest, prompts={}), prompt_name="title")

    def test_adapter(self, manifest: Manifest) -> None:
        manifest = msgspec.structs.replace(manifest, adapters=("query",))
        assert plan(manifest, prompt_name="query").adapter == 0
        assert plan(manifest, prompt_name="query").prompt == "query: "
        assert plan(manifest, prompt_name="document").adapter == NO_ADAPTER
        assert plan(manifest, prompt="query: ").adapter == NO_ADAPTER
        assert plan(manifest).adapter == NO_ADAPTER
        manifest = msgspec.structs.replace(manifest, default_prompt="query")
        assert plan(manifest).adapter == 0

    def test_both(self, manifest: Manifest) -> None:
        with pytest.raises(InputError, match="cannot both be given"):
            plan(manifest, prompt="a", prompt_name="query")


@pytest.mark.parametrize("dimensions", [0, -1, 33, 8.0, "8", True])
def test_dimensions_that_are_not_available(manifest: Manifest, dimensions: Any) -> None:
    with pytest.raises(InputError, match=r"is not available: 1\.\.32") as caught:
        plan(manifest, dimensions=dimensions)
    assert caught.value.param == "dimensions"


def test_dimensions_of_a_model_without_smaller_sizes(manifest: Manifest) -> None:
    manifest = msgspec.structs.replace(manifest, dimensions=Dimensions(native=32))
    assert plan(manifest, dimensions=32).dimensions is None
    with pytest.raises(InputError, match="dimensions=16 is not available: only 32"):
        plan(manifest, dimensions=16)


def test_any_dimensions_from_the_smallest_on(manifest: Manifest) -> None:
    sizes = Dimensions(native=32, matryoshka=(), smallest=8)
    manifest = msgspec.structs.replace(manifest, dimensions=sizes)
    assert plan(manifest, dimensions=8).dimensions == 8
    with pytest.raises(InputError, match=r"dimensions=7 is not available: 8\.\.32"):
        plan(manifest, dimensions=7)


def test_outputs_the_bundle_does_not_have(manifest: Manifest) -> None:
    manifest = msgspec.structs.replace(manifest, outputs=("embedding",))
    with pytest.raises(InputError, match="task='token_embed' is not what this bundle does: embed;"):
        plan(manifest, task="token_embed")
    with pytest.raises(InputError, match="does not give 'pooled'"):
        plan(manifest, normalize=False)


def test_unknown_task(manifest: Manifest) -> None:
    with pytest.raises(
        InputError, match="task='classify' must be 'embed' or 'token_embed' or 'sparse'"
    ):
        plan(manifest, task="classify")
