"""The systems that are compared, and where each runs."""

from dataclasses import dataclass

from embed_runtime.types import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A system.

    Attributes:
        name: Its word on the command line and in results.
        system: `module:name` of its class.
        precisions: What it is measured in.
        environment: Whose Python runs it; None for this one's.
        backend: Of sentence-transformers, where it is that.
        reads: Backend of sentence-transformers that saves what it reads; None where it reads the
            checkpoint itself.
    """

    name: str
    system: str
    precisions: tuple[Precision, ...]
    environment: str | None = None
    backend: str | None = None
    reads: str | None = None

    @property
    def converter(self) -> str | None:
        """Environment that saves what the system reads; None where nothing is to be saved."""
        return None if self.reads is None else f"sentence-transformers-{self.reads}"


SENTENCE_TRANSFORMERS = "benchmarks.peers.sentence_transformers"

OURS = "embed-runtime"
BASELINE = Peer(
    name="sentence-transformers",
    system=f"{SENTENCE_TRANSFORMERS}:SentenceTransformers",
    precisions=("fp32", "bf16"),
    backend="torch",
)
PEERS = (
    BASELINE,
    Peer(
        name="sentence-transformers-onnx",
        system=f"{SENTENCE_TRANSFORMERS}:SentenceTransformers",
        precisions=("fp32",),
        environment="sentence-transformers-onnx",
        backend="onnx",
        reads="onnx",
    ),
    Peer(
        name="sentence-transformers-openvino",
        system=f"{SENTENCE_TRANSFORMERS}:SentenceTransformers",
        precisions=("fp32", "bf16"),
        environment="sentence-transformers-openvino",
        backend="openvino",
        reads="openvino",
    ),
    Peer(
        name="vllm",
        system="benchmarks.peers.vllm:Vllm",
        precisions=("fp32", "bf16"),
        environment="vllm",
    ),
    Peer(
        name="fastembed",
        system="benchmarks.peers.fastembed:Fastembed",
        precisions=("fp32",),
        environment="fastembed",
        reads="onnx",
    ),
    Peer(
        name="infinity",
        system="benchmarks.peers.infinity:Infinity",
        precisions=("fp32",),
        environment="infinity",
    ),
    Peer(
        name=OURS,
        system="benchmarks.peers.embed_runtime:EmbedRuntime",
        precisions=("fp32", "bf16", "int8"),
    ),
)
