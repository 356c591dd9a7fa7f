"""The real model from checkpoint to clients: export, proof, parity, both APIs."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import cohere
import httpx
import numpy as np
import openai
import pytest

from embed_export.corpus import real_texts
from embed_runtime import Runtime
from embed_runtime.bundle import read_manifest
from embed_runtime.certificate import read_certificate
from embed_runtime.types import FloatArray

# Stricter than the certificate's limit for float32.
MIN_COSINE = 0.999999
NUM_TEXTS = 1000


def test_the_command_proves_what_it_exports(exported: tuple[Path, CompletedProcess[str]]) -> None:
    bundle, done = exported
    assert done.returncode == 0, done.stderr
    certificate = read_certificate(bundle)
    assert done.stdout.endswith(f"\n{certificate.summary()}\nbundle: {bundle}\n")
    assert len(certificate.summary().splitlines()) == 6
    assert "Running the original model" in done.stdout
    assert not done.stderr
    backends = {entry.backend: entry for entry in read_manifest(bundle).engines}
    assert backends["onnxruntime"].certified
    assert backends["openvino"].certified
    # Built here, but this machine may have no GPU to prove it on.
    assert (bundle / backends["tensorrt_rtx"].file).name == "model.plan"


@pytest.fixture(scope="module")
def reference(
    minilm: Path, load_original: Callable[[Path], Callable[..., FloatArray]]
) -> FloatArray:
    return load_original(minilm)(list(real_texts(NUM_TEXTS)))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_thousand_texts_match_sentence_transformers(
    bundle: Path, reference: FloatArray, engine: str
) -> None:
    with Runtime(bundle, engine=engine) as runtime:
        vectors = runtime.embed(real_texts(NUM_TEXTS))
    assert vectors.shape == reference.shape
    cosines = np.einsum("nd,nd->n", vectors.astype(np.float64), reference)
    assert cosines.min() >= MIN_COSINE
    assert np.abs(vectors - reference).max() < 1e-5


def test_a_single_late_chunk_has_its_texts_plain_vector(bundle: Path) -> None:
    texts = [text for text in real_texts(20) if len(text) < 500]
    with Runtime(bundle, engine="onnxruntime") as runtime:
        late = [runtime.embed([text], late_chunking=True)[0] for text in texts]
        assert np.abs(np.stack(late) - runtime.embed(texts)).max() < 1e-5


def test_verify_repeats_the_proof_without_the_original(bundle: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None;"
        " from embed_export.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--verify", str(bundle)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"onnxruntime fp32 1\.0000000 / 1\.0000000", done.stdout)


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[str]:
    """A real `embed-serve`; gives its address, and checks that it ends cleanly."""
    process = subprocess.Popen(
        [sys.executable, "-m", "embed_server.cli", str(bundle), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    address = next(
        (found[0] for line in process.stdout if (found := re.search(r"http://\S+", line))), None
    )
    assert address is not None, "the server ended before it was ready"
    yield address
    process.send_signal(signal.SIGTERM)
    process.stdout.close()
    assert process.wait(30) == 0


def test_the_openai_client_gets_the_vectors(server: str, bundle: Path) -> None:
    texts = list(real_texts(12))
    with Runtime(bundle) as runtime:
        expected = runtime.embed(texts)
    with openai.OpenAI(base_url=f"{server}/v1", api_key="none") as client:
        answer = client.embeddings.create(
            model="all-MiniLM-L6-v2", input=texts, extra_body={"truncate_prompt_tokens": -1}
        )
    found = np.array([item.embedding for item in answer.data], np.float32)
    assert np.abs(found - expected).max() < 1e-6
    assert answer.model == "all-MiniLM-L6-v2"


def test_the_cohere_client_gets_the_vectors(server: str, bundle: Path) -> None:
    texts = list(real_texts(12))
    with Runtime(bundle) as runtime:
        expected = runtime.embed(texts)
    with httpx.Client() as http:
        answer = cohere.ClientV2(api_key="none", base_url=server, httpx_client=http).embed(
            model="all-MiniLM-L6-v2",
            texts=texts,
            input_type="search_document",
            embedding_types=["float"],
        )
    assert answer.embeddings.float_ is not None
    assert np.abs(np.array(answer.embeddings.float_, np.float32) - expected).max() < 1e-6


def test_related_sentences_are_near(bundle: Path) -> None:
    with Runtime(bundle) as runtime:
        scores = runtime.score(
            "How do plants make sugar?",
            ["Photosynthesis turns light into glucose.", "The bank raised interest rates."],
        )
    assert scores[0] > 0.4 > 0.2 > scores[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("after", ["Writing graphs and weights", "Building the onnxruntime engine"])
def test_a_stopped_export_leaves_nothing(
    minilm: Path, tmp_path: Path, after: str, number: signal.Signals
) -> None:
    output = tmp_path / "bundle"
    command = ["embed_export.cli", str(minilm), "-o", str(output), "--engine", "onnxruntime"]
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert any(line.startswith(after) for line in process.stdout), "it ended too early"
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []
