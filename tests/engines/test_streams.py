"""Several batches at once: the same vectors, and each with its share of the threads."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from embed_runtime.engines import Engine, LoadSpec, get_backend
from embed_runtime.engines import openvino as backend
from embed_runtime.types import Batch, OutputName

LoadEngine = Callable[..., Engine]
MakeBatch = Callable[..., Batch]
MakeSpec = Callable[..., LoadSpec]

SECONDS = 30
TOLERANCE = 1e-5


@pytest.mark.parametrize(
    ("backend", "wanted", "num_streams"),
    [("onnxruntime", 2, 1), ("openvino", 1, 1), ("openvino", 2, 2)],
)
def test_computes_as_many_batches_at_once_as_it_says(
    backend: str, wanted: int, num_streams: int, load_engine: LoadEngine, make_batch: MakeBatch
) -> None:
    engine = load_engine(backend, num_threads=2, num_streams=wanted)
    assert engine.num_streams == num_streams
    assert engine.run_express is not None
    batches = [make_batch([5, 40, 96] * 8, seed=seed) for seed in range(6)]
    expected = [engine.run(batch)["embedding"] for batch in batches]
    with ThreadPoolExecutor(num_streams) as threads, ThreadPoolExecutor(1) as another:
        small = another.map(engine.run_express, batches * 5)
        made = [one["embedding"] for one in (*threads.map(engine.run, batches * 5), *small)]
    np.testing.assert_allclose(made, expected * 10, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("num_threads", "wanted", "num_streams"),
    [(1, 2, 1), (3, 2, 1), (4, 2, 2), (4, 3, 1), (6, 4, 2)],
)
def test_all_streams_have_as_many_threads(
    num_threads: int, wanted: int, num_streams: int, load_engine: LoadEngine
) -> None:
    engine = load_engine("openvino", num_threads=num_threads, num_streams=wanted)
    assert engine.num_streams == num_streams


@pytest.mark.parametrize(("hidden_size", "num_streams"), [(384, 2), (768, 1)])
def test_small_models_have_two_streams_if_nothing_is_said(
    hidden_size: int, num_streams: int, make_spec: MakeSpec
) -> None:
    outputs: tuple[OutputName, ...] = ("embedding", "pooled")
    spec = make_spec(
        "openvino",
        num_threads=2,
        num_streams=None,
        manifest={"hidden_size": hidden_size, "outputs": outputs},
    )
    assert get_backend("openvino").load(spec).num_streams == num_streams


def test_large_weights_are_held_once(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec("openvino", num_threads=2, num_streams=None)
    num_bytes = sum((spec.folder / name).stat().st_size for name in spec.entry.files)
    for limit, may_copy in ((num_bytes, True), (num_bytes - 1, False)):
        monkeypatch.setattr(backend, "_MAX_COPIED_BYTES", limit)
        engine = get_backend("openvino").load(spec)
        assert (engine.run_express is not None) == may_copy
        assert engine.num_streams == 1 + may_copy


def test_a_lone_batch_has_all_threads_and_others_a_share(
    make_spec: MakeSpec, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hold up one batch after another, and look at which way of computing each was given."""
    library = pytest.importorskip("openvino")
    entered, leave = threading.Semaphore(0), threading.Semaphore(0)
    compiled: dict[Any, tuple[int, int]] = {}
    used: list[tuple[int, int]] = []
    compile_model, infer = library.Core.compile_model, library.InferRequest.infer

    def compile_noting(core: Any, graph: Any, device: str, settings: dict[str, Any]) -> Any:
        made = compile_model(core, graph, device, settings)
        way = settings["NUM_STREAMS"], settings["INFERENCE_NUM_THREADS"]
        create = made.create_infer_request

        def create_noting() -> Any:
            request = create()
            compiled[id(request)] = way
            return request

        made.create_infer_request = create_noting
        return made

    def infer_slowly(request: Any, *inputs: Any, **options: Any) -> Any:
        used.append(compiled[id(request)])
        entered.release()
        assert leave.acquire(timeout=SECONDS)
        return infer(request, *inputs, **options)

    monkeypatch.setattr(library.Core, "compile_model", compile_noting)
    monkeypatch.setattr(library.InferRequest, "infer", infer_slowly)
    engine = get_backend("openvino").load(make_spec("openvino", num_threads=2, num_streams=2))
    assert engine.run_express is not None
    assert list(compiled.values()) == [(1, 2)]
    batch = make_batch([3])
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(3))
        running: list[Future[Any]] = []
        # A query may come an instant before the large batches that it was to pass.
        for run in (engine.run_express, engine.run, engine.run):
            running.append(threads.submit(run, batch))
            assert entered.acquire(timeout=SECONDS)
        # A single thread for the query; all threads for the first batch, then one of two streams.
        assert used == [(1, 1), (1, 2), (2, 2)]
        leave.release(3)
        for one in running:
            one.result(SECONDS)
        leave.release()
        engine.run(batch)
        assert used[3] == (1, 2)
