"""ONNX Runtime and OpenVINO: the padded graph's vectors, whatever the batch; errors in one line."""

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embed_runtime.dialects import padded_inputs
from embed_runtime.engines import BuildSpec, Engine, LoadSpec, get_backend
from embed_runtime.errors import BundleError, EngineError
from embed_runtime.manifest import Dimensions, Manifest
from embed_runtime.types import Batch, FloatArray, OutputName, Precision

BACKENDS = ("onnxruntime", "openvino")
OUTPUTS: tuple[OutputName, ...] = ("embedding", "pooled", "token_embeddings")
# Largest difference of float32 results that only the order of additions explains; vectors have
# length 1, token vectors about 8. Measured: 4e-7 and 3e-6.
TOLERANCE = 1e-5

LoadEngine = Callable[..., Engine]
MakeBatch = Callable[..., Batch]
MakeBundle = Callable[..., tuple[Path, Manifest]]
MakeSpec = Callable[..., LoadSpec]

every_backend = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture
def run_padded(make_bundle: MakeBundle) -> Callable[..., dict[str, FloatArray]]:
    """Run the padded graph, the plainest form of the model, in a session of its own."""

    def run(batch: Batch, precision: Precision = "fp32", **changes: Any) -> dict[str, FloatArray]:
        folder, manifest = make_bundle(precision, **changes)
        session = import_module("onnxruntime").InferenceSession(folder / "graphs/padded.onnx")
        made = padded_inputs(batch, manifest)
        arrays: list[npt.NDArray[Any]] = session.run(
            list(OUTPUTS), {one.name: made[one.name] for one in session.get_inputs()}
        )
        outputs = dict(zip(OUTPUTS, arrays, strict=True))
        is_token = made["attention_mask"].astype(bool)
        outputs["token_embeddings"] = outputs["token_embeddings"][is_token]
        return {str(name): array for name, array in outputs.items()}

    return run


@every_backend
@pytest.mark.parametrize("lengths", [[1], [96], [5, 1, 96, 17], [3] * 40])
def test_vectors_are_those_of_the_padded_graph(
    backend: str,
    lengths: list[int],
    load_engine: LoadEngine,
    make_batch: MakeBatch,
    run_padded: Callable[..., dict[str, FloatArray]],
) -> None:
    batch = make_batch(lengths)
    made = load_engine(backend).run(batch)
    expected = run_padded(batch)
    assert set(made) == set(OUTPUTS)
    for name in OUTPUTS:
        assert made[name].dtype == np.float32
        np.testing.assert_allclose(made[name], expected[name], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(np.linalg.norm(made["embedding"], axis=1), 1, rtol=0, atol=1e-6)


@every_backend
def test_a_row_does_not_depend_on_its_neighbours(
    backend: str, load_engine: LoadEngine, make_batch: MakeBatch
) -> None:
    engine = load_engine(backend)
    lengths = [7, 96, 1, 30]
    batch = make_batch(lengths)
    together = engine.run(batch)
    for row, (start, stop) in enumerate(zip(batch.cu_seqlens, batch.cu_seqlens[1:], strict=False)):
        alone = engine.run(
            Batch(
                input_ids=batch.input_ids[start:stop],
                cu_seqlens=np.array([0, stop - start], np.int32),
                num_skipped=np.zeros(1, np.int32),
                adapters=batch.adapters[row : row + 1],
                outputs=OUTPUTS,
            )
        )
        np.testing.assert_allclose(
            alone["embedding"][0], together["embedding"][row], rtol=0, atol=TOLERANCE
        )
        np.testing.assert_allclose(
            alone["token_embeddings"],
            together["token_embeddings"][start:stop],
            rtol=0,
            atol=TOLERANCE,
        )


@every_backend
def test_skipped_tokens_are_attended_to_but_not_pooled(
    backend: str,
    load_engine: LoadEngine,
    make_batch: MakeBatch,
    run_padded: Callable[..., dict[str, FloatArray]],
) -> None:
    engine = load_engine(backend, include_prompt=False)
    batch = make_batch([9, 4], num_skipped=[3, 0])
    made, expected = engine.run(batch), run_padded(batch, include_prompt=False)
    np.testing.assert_allclose(made["pooled"], expected["pooled"], rtol=0, atol=TOLERANCE)
    mean = made["token_embeddings"][3:9].mean(axis=0)
    np.testing.assert_allclose(made["pooled"][0], mean, rtol=0, atol=TOLERANCE)


@every_backend
def test_a_model_that_does_not_normalize_gives_its_pooled_vectors(
    backend: str, load_engine: LoadEngine, make_batch: MakeBatch
) -> None:
    """Both outputs are then one value in the graph, which OpenVINO gives one port."""
    made = load_engine(backend, normalize=False).run(make_batch([9, 4]))
    np.testing.assert_array_equal(made["embedding"], made["pooled"])
    assert np.linalg.norm(made["embedding"], axis=1).min() > 1.5


@every_backend
def test_only_what_is_asked_for_comes_back_in_fresh_arrays(
    backend: str, load_engine: LoadEngine, make_batch: MakeBatch
) -> None:
    engine = load_engine(backend)
    for name in OUTPUTS:
        assert set(engine.run(make_batch([3, 5], outputs=(name,)))) == {name}
    first = engine.run(make_batch([3, 5], seed=1))
    kept = {name: array.copy() for name, array in first.items()}
    second = engine.run(make_batch([3, 5], seed=2))
    for name in OUTPUTS:
        np.testing.assert_array_equal(first[name], kept[name])
        assert not np.array_equal(first[name], second[name])
        first[name][:] = 0  # writable, and nobody else's
        assert second[name].any()


@pytest.mark.parametrize(
    ("backend", "precision", "least_cosine"),
    [
        # Weights of 16 bits, float32 arithmetic.
        ("onnxruntime", "fp16", 0.99999),
        ("onnxruntime", "bf16", 0.9999),
        ("openvino", "fp16", 0.99999),
        ("openvino", "bf16", 0.999),
        ("onnxruntime", "int8", 0.99),
    ],
)
def test_every_precision_gives_the_float32_vectors(
    backend: str,
    precision: Precision,
    least_cosine: float,
    load_engine: LoadEngine,
    make_batch: MakeBatch,
) -> None:
    batch = make_batch([5, 1, 96, 17, 40], outputs=("embedding",))
    made = load_engine(backend, precision).run(batch)["embedding"]
    expected = load_engine("onnxruntime").run(batch)["embedding"]
    assert (made * expected).sum(axis=1).min() >= least_cosine
    assert not np.array_equal(made, expected)
    # Pooling and normalization are float32 in every precision.
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, rtol=0, atol=1e-6)


@every_backend
def test_a_signal_after_close_is_no_crash(
    backend: str, make_spec: MakeSpec, tmp_path: Path
) -> None:
    # A scheduler loads in one thread and closes in another; then comes Ctrl-C.
    code = """if True:
        import pickle, signal, sys, threading
        from pathlib import Path
        from embed_runtime.engines import get_backend

        engine = get_backend(sys.argv[1]).load(pickle.loads(Path(sys.argv[2]).read_bytes()))
        closing = threading.Thread(target=engine.close)
        closing.start()
        closing.join()
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            print("interrupted")
    """
    path = tmp_path / "spec.pickle"
    path.write_bytes(pickle.dumps(make_spec(backend)))
    command = [sys.executable, "-c", code, backend, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.stdout, run.returncode) == ("interrupted\n", 0), run.stderr


def test_int8_on_openvino_gives_each_token_its_own_values(
    load_engine: LoadEngine, make_batch: MakeBatch, run_padded: Callable[..., dict[str, FloatArray]]
) -> None:
    """Sizes at which it fills up tokens and slots: 193 to 200, 90 to 96."""
    batch = make_batch([90, 70, 33])
    outputs = load_engine("openvino", "int8").run(batch)
    expected = run_padded(batch, "int8")
    for name in OUTPUTS:
        assert outputs[name].shape == expected[name].shape
        norms = np.linalg.norm(outputs[name], axis=1) * np.linalg.norm(expected[name], axis=1)
        cosines = np.einsum("nd,nd->n", outputs[name], expected[name]) / norms
        assert cosines.min() > 0.98, name


@every_backend
def test_close_is_safe_to_call_twice(
    backend: str, load_engine: LoadEngine, make_batch: MakeBatch
) -> None:
    engine = load_engine(backend)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(make_batch([3]))


def test_a_failing_batch_is_an_engine_error_and_the_next_one_is_fine(
    load_engine: LoadEngine, make_batch: MakeBatch, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = load_engine("onnxruntime")
    wrong = make_batch([3])
    wrong.input_ids[1] = 5000  # the vocabulary has 101 ids
    with pytest.raises(EngineError, match=r"^onnxruntime failed: .*5000") as caught:
        engine.run(wrong)
    assert "\n" not in str(caught.value)
    assert engine.run(make_batch([3]))["embedding"].shape == (1, 64)
    assert capfd.readouterr() == ("", "")


def test_openvino_refuses_inputs_of_a_wrong_shape(
    load_engine: LoadEngine, make_batch: MakeBatch
) -> None:
    batch = make_batch([3])
    wrong = Batch(
        input_ids=batch.input_ids.reshape(1, 3),
        cu_seqlens=batch.cu_seqlens,
        num_skipped=batch.num_skipped,
        adapters=batch.adapters,
    )
    with pytest.raises(EngineError, match=r"^openvino failed: ") as caught:
        load_engine("openvino").run(wrong)
    assert "\n" not in str(caught.value)


@every_backend
@pytest.mark.parametrize("damage", ["cut", "text", "gone", "no weights"])
def test_a_damaged_graph_is_a_bundle_error_of_one_line(
    backend: str,
    damage: str,
    make_spec: MakeSpec,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(make_spec(backend).folder, tmp_path, dirs_exist_ok=True)
    graph = tmp_path / "graphs/packed.onnx"
    if damage == "cut":
        graph.write_bytes(graph.read_bytes()[:1000])
    elif damage == "text":
        graph.write_text("not a graph")
    elif damage == "gone":
        graph.unlink()
    else:
        (tmp_path / "graphs/weights.bin").unlink()
    with pytest.raises(BundleError, match=r"packed\.onnx") as caught:
        get_backend(backend).load(make_spec(backend, folder=tmp_path))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@every_backend
@pytest.mark.parametrize(
    ("manifest", "entry", "words"),
    [
        ({"dimensions": Dimensions(native=99)}, {}, "embedding of the graph has 64 values, .* 99"),
        ({"hidden_size": 32}, {}, "token_embeddings of the graph has 64 values, .* 32"),
        ({"outputs": ("embedding", "sparse")}, {}, "no output 'sparse'"),
        ({}, {"dialect": "padded", "file": "graphs/padded.onnx"}, "padded"),
        ({"adapters": ("query",)}, {}, "has no input 'adapter_ids'"),
    ],
)
def test_a_manifest_that_lies_about_the_graph_is_refused(
    backend: str, manifest: dict[str, Any], entry: dict[str, Any], words: str, make_spec: MakeSpec
) -> None:
    with pytest.raises(BundleError, match=words):
        get_backend(backend).load(make_spec(backend, manifest=manifest, entry=entry))


@every_backend
def test_a_graph_with_an_input_we_do_not_make_is_refused(
    backend: str, make_bundle: MakeBundle, make_spec: MakeSpec
) -> None:
    folder, _ = make_bundle(include_prompt=False)  # Its graph has a `pool_mask`.
    with pytest.raises(BundleError, match=r"input 'pool_mask', known are .*unpad_index"):
        get_backend(backend).load(make_spec(backend, folder=folder))


def test_a_provider_that_is_not_here_is_refused(make_spec: MakeSpec) -> None:
    with pytest.raises(BundleError, match="cannot use CUDAExecutionProvider here"):
        get_backend("onnxruntime_cuda").load(make_spec("onnxruntime"))


@every_backend
def test_build_takes_the_graph_as_it_is(backend: str, make_bundle: MakeBundle) -> None:
    folder, _ = make_bundle()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    built = get_backend(backend).build(
        BuildSpec(
            folder=folder,
            graph="graphs/packed.onnx",
            dialect="packed",
            precision="fp32",
            max_tokens=96,
            num_layers=2,
        )
    )
    assert built.file == "graphs/packed.onnx"
    assert built.files == ("graphs/packed.onnx", "graphs/weights.bin")
    assert built.device == "cpu"
    assert built.producer == get_backend(backend).probe().producer
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
