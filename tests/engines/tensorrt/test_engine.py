"""Loading and running plans, on a fake driver and a fake TensorRT."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embed_runtime.dialects import packed_inputs
from embed_runtime.engines import LoadSpec
from embed_runtime.engines._cuda import Device
from embed_runtime.engines._tensorrt_engine import TensorRtEngine, load
from embed_runtime.engines._tensorrt_library import Edition
from embed_runtime.errors import BundleError, EngineError
from embed_runtime.manifest import Dimensions
from embed_runtime.types import Batch, FloatArray, OutputName

OUTPUTS: tuple[OutputName, ...] = ("embedding", "pooled", "token_embeddings")
LAUNCH_FAILED = 719

MakeBatch = Callable[..., Batch]
LoadPlan = Callable[..., TensorRtEngine]


@pytest.fixture
def make_plan_spec(make_spec: Callable[..., LoadSpec], tmp_path: Path) -> Callable[..., LoadSpec]:
    """Write a plan, and say how to load it; keyword arguments replace fields of its entry."""

    def make(*, plan: bytes = b"a plan", manifest: Any = None, **entry: Any) -> LoadSpec:
        (tmp_path / "model.plan").write_bytes(plan)
        fields: dict[str, Any] = {
            "backend": "tensorrt",
            "file": "model.plan",
            "files": ("model.plan",),
            "dialect": "packed-fp16",
            "precision": "fp16",
            "device": "cuda",
            "producer": "tensorrt 11.9.0",
            "targets": ("8.9",),
        }
        return make_spec("dummy", folder=tmp_path, manifest=manifest, entry=fields | entry)

    return make


@pytest.fixture
def load_plan(make_plan_spec: Callable[..., LoadSpec], edition: Edition, driver: Any) -> LoadPlan:
    def load_it(**changes: Any) -> TensorRtEngine:
        return load(
            edition, make_plan_spec(**changes), open_device=partial(Device, load=lambda: driver)
        )

    return load_it


def expected_outputs(trt: Any, batch: Batch, spec: LoadSpec) -> dict[OutputName, FloatArray]:
    """Compute the fake's model row by row."""
    inputs = packed_inputs(batch, spec.manifest)
    tokens = trt.embed(inputs["input_ids"], inputs["position_ids"])
    edges = batch.cu_seqlens.tolist()
    pooled = np.stack([tokens[start:stop].mean(axis=0) for start, stop in pairwise(edges)])
    return {
        "token_embeddings": tokens,
        "pooled": pooled,
        "embedding": pooled / np.linalg.norm(pooled, axis=1, keepdims=True),
    }


@pytest.mark.parametrize(
    "lengths",
    [
        pytest.param([1], id="one token"),
        pytest.param([96, 3, 40], id="latency profile"),
        pytest.param([20] * 30, id="short rows"),
        pytest.param([1] * 200 + [512] * 3, id="split for its padding"),
        pytest.param([300] * 54, id="full"),
    ],
)
def test_vectors_are_the_models(
    lengths: list[int],
    load_plan: LoadPlan,
    make_plan_spec: Callable[..., LoadSpec],
    make_batch: MakeBatch,
    trt: Any,
) -> None:
    batch = make_batch(lengths)
    made = load_plan().run(batch)
    assert set(made) == set(OUTPUTS)
    for name, expected in expected_outputs(trt, batch, make_plan_spec()).items():
        assert made[name].dtype == np.float32
        np.testing.assert_allclose(made[name], expected, rtol=0, atol=1e-5)


def test_each_batch_goes_to_the_context_of_its_profile(
    load_plan: LoadPlan, make_batch: MakeBatch, trt: Any
) -> None:
    engine = load_plan()
    contexts = trt.engine.contexts
    assert [context.profile for context in contexts] == [0, 1, 2, 3]
    for index, lengths in enumerate(([5], [20] * 9, [100] * 9, [400] * 9)):
        engine.run(make_batch(lengths))
        assert [context.num_runs for context in contexts] == [1] * (index + 1) + [0] * (3 - index)


def test_contexts_share_one_arena_and_buffers_that_never_move(
    load_plan: LoadPlan, make_batch: MakeBatch, driver: Any, trt: Any
) -> None:
    engine = load_plan()
    contexts = trt.engine.contexts
    [(arena, arena_bytes)] = {context.arena for context in contexts}
    assert len(driver.memory[arena]) >= arena_bytes == trt.engine.device_memory_size_v2
    assert all(context.addresses == contexts[0].addresses for context in contexts)
    before = set(driver.memory)
    for lengths in ([1], [512] * 20, [3] * 100):
        engine.run(make_batch(lengths))
    assert set(driver.memory) == before
    assert len(trt.engine.contexts) == 4


def test_a_shape_is_set_only_when_it_changes(
    load_plan: LoadPlan, make_batch: MakeBatch, trt: Any
) -> None:
    engine = load_plan()
    context = trt.engine.contexts[0]
    for seed in range(3):
        engine.run(make_batch([5, 7], seed=seed))
    assert context.set_shapes == [
        ("input_ids", (12,)),
        ("position_ids", (12,)),
        ("pad_index", (2, 7)),
        ("unpad_index", (12,)),
        ("attention_mask", (2, 7)),
    ]
    engine.run(make_batch([6, 6]))
    assert len(context.set_shapes) == 10


def test_only_what_is_asked_for_is_copied_into_fresh_arrays(
    load_plan: LoadPlan, make_batch: MakeBatch, driver: Any
) -> None:
    engine = load_plan()
    for outputs in (("embedding",), ("pooled", "token_embeddings")):
        driver.calls.clear()
        assert set(engine.run(make_batch([3, 5], outputs=outputs))) == set(outputs)
        assert driver.calls.count("cuMemcpyDtoHAsync_v2") == len(outputs)
        assert driver.calls[-1] == "cuStreamSynchronize"
    first = engine.run(make_batch([3, 5], seed=1))
    kept = {name: array.copy() for name, array in first.items()}
    engine.run(make_batch([3, 5], seed=2))
    for name in OUTPUTS:
        np.testing.assert_array_equal(first[name], kept[name])


def test_the_calling_thread_is_given_the_device(
    load_plan: LoadPlan, make_batch: MakeBatch, driver: Any
) -> None:
    engine = load_plan()
    driver.calls.clear()
    engine.run(make_batch([3]))
    assert driver.calls[0] == "cuCtxSetCurrent"


def test_what_tensorrt_refuses_is_an_engine_error_with_its_reason(
    load_plan: LoadPlan, make_batch: MakeBatch, trt: Any
) -> None:
    engine = load_plan()
    engine.run(make_batch([5]))
    trt.engine.refusal = "static dimension\nmismatch"
    with pytest.raises(EngineError, match="static dimension mismatch"):
        engine.run(make_batch([7]))
    trt.engine.refusal = ""
    # The shape is set anew: after a failure nobody knows what the context holds.
    assert engine.run(make_batch([5]))["token_embeddings"].shape == (5, 64)
    assert len(trt.engine.contexts[0].set_shapes) == 15


@pytest.mark.parametrize(
    "function", ["cuCtxSetCurrent", "cuMemcpyHtoDAsync_v2", "cuStreamSynchronize"]
)
def test_a_dead_device_is_an_engine_error(
    function: str, load_plan: LoadPlan, make_batch: MakeBatch, driver: Any
) -> None:
    engine = load_plan()
    driver.statuses[function] = LAUNCH_FAILED
    with pytest.raises(
        EngineError, match=rf"^the Fake GPU failed: {function} failed: unspecified launch failure"
    ):
        engine.run(make_batch([5]))


def test_close_frees_everything_and_is_safe_to_call_twice(
    load_plan: LoadPlan, make_batch: MakeBatch, driver: Any
) -> None:
    engine = load_plan()
    engine.close()
    engine.close()
    assert not driver.memory
    with pytest.raises(EngineError, match="closed"):
        engine.run(make_batch([5]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"producer": "tensorrt 10.1.0"},
            "was built by tensorrt 10.1.0, here is tensorrt 11.9.0; run embed-export again here",
        ),
        ({"producer": "tensorrt_rtx 11.9.0"}, "was built by tensorrt_rtx 11.9.0, here is"),
        ({"producer": ""}, "was built by an unknown library"),
        ({"plan": b"vtrt of another edition"}, "is not a plan of tensorrt"),
        ({"plan": b""}, "is not a plan of tensorrt"),
        (
            {"targets": ("8.0", "9.0")},
            "was built for compute capability 8.0, 9.0, this Fake GPU has 8.9; run embed-export",
        ),
        ({"targets": ()}, "was built for compute capability unknown, this Fake GPU has 8.9"),
    ],
)
def test_a_plan_of_another_origin_is_refused_before_it_is_touched(
    changes: dict[str, Any], words: str, load_plan: LoadPlan, trt: Any, driver: Any
) -> None:
    with pytest.raises(BundleError, match=words) as caught:
        load_plan(**changes)
    assert "model.plan" in str(caught.value)
    assert trt.num_deserialized == 0
    assert not driver.memory


@pytest.mark.parametrize(
    ("problems", "words"),
    [(1 | 4, "version_mismatch, old_cuda_driver"), (0, "the library gave no reason")],
)
def test_a_plan_the_library_finds_invalid_is_refused_before_it_is_touched(
    problems: int, words: str, load_plan: LoadPlan, trt: Any, driver: Any
) -> None:
    trt.validity = (2, problems)
    with pytest.raises(BundleError, match=f"is not valid on this Fake GPU: {words};"):
        load_plan()
    assert trt.num_deserialized == 0
    assert driver.calls[-1] == "cuDevicePrimaryCtxRelease_v2"


@pytest.mark.parametrize("validity", [(0, 0), (1, 4)])
def test_a_valid_or_suboptimal_plan_is_taken(
    validity: tuple[int, int], load_plan: LoadPlan, trt: Any
) -> None:
    trt.validity = validity
    load_plan()
    assert trt.num_deserialized == 1


def test_a_plan_that_does_not_deserialize_is_refused_with_the_reason(
    load_plan: LoadPlan, trt: Any, driver: Any
) -> None:
    trt.can_deserialize = False
    with pytest.raises(BundleError, match="cannot be deserialized: magic tag does not match"):
        load_plan()
    assert driver.calls[-1] == "cuDevicePrimaryCtxRelease_v2"


def test_a_manifest_that_lies_is_refused_and_nothing_stays(
    load_plan: LoadPlan, driver: Any
) -> None:
    with pytest.raises(BundleError, match="embedding of the graph has 64 values"):
        load_plan(manifest={"dimensions": Dimensions(native=32)})
    assert not driver.memory
    assert driver.calls[-1] == "cuDevicePrimaryCtxRelease_v2"


@pytest.mark.parametrize("function", ["cuMemAlloc_v2", "cuMemAllocHost_v2"])
def test_too_little_memory_is_a_bundle_error_and_nothing_stays(
    function: str, load_plan: LoadPlan, driver: Any
) -> None:
    driver.statuses[function] = 2
    with pytest.raises(BundleError, match=rf"on this Fake GPU: {function} failed: out of memory"):
        load_plan()
    assert not driver.memory


def test_no_context_is_a_bundle_error_and_nothing_stays(
    load_plan: LoadPlan, trt: Any, driver: Any
) -> None:
    trt.no_contexts = True
    with pytest.raises(BundleError, match="no execution context"):
        load_plan()
    assert not driver.memory


def test_without_a_device_nothing_of_the_plan_is_touched(
    load_plan: LoadPlan, trt: Any, driver: Any
) -> None:
    driver.statuses["cuInit"] = 100
    with pytest.raises(BundleError, match=r"needs an NVIDIA GPU: cuInit failed: no CUDA-capable"):
        load_plan()
    assert trt.num_deserialized == 0


def test_a_missing_plan_is_a_bundle_error(
    edition: Edition, make_plan_spec: Callable[..., LoadSpec], driver: Any
) -> None:
    spec = make_plan_spec()
    (spec.folder / "model.plan").unlink()
    with pytest.raises(BundleError, match=r"model\.plan"):
        load(edition, spec, open_device=partial(Device, load=lambda: driver))
