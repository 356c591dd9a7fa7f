"""`manifest.json`: all that a bundle says about itself, read strictly and written once."""

import hashlib
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

import msgspec

from embed_runtime.errors import BundleError
from embed_runtime.types import OutputName, Precision

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
CERTIFICATE_NAME = "certificate.json"
TOKENIZER_NAME = "tokenizer.json"

PoolingMode: TypeAlias = Literal[
    "cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"
]
Similarity: TypeAlias = Literal["cosine", "dot", "euclidean", "manhattan"]
Dialect: TypeAlias = Literal["padded", "packed", "packed-fp16", "packed-bf16"]
Device: TypeAlias = Literal["cpu", "cuda"]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An immutable part of the manifest; unknown keys are refused."""


class Model(Record):
    """Where the bundle's weights came from."""

    id: str
    architecture: str
    model_type: str
    revision: str | None = None
    license: str | None = None


class Pooling(Record):
    """How token vectors become one vector; several modes are concatenated in this order.

    The names are those of Sentence-Transformers' pooling configuration.
    """

    modes: tuple[PoolingMode, ...]
    include_prompt: bool = True


class Dense(Record):
    """A linear head after pooling."""

    in_features: int
    out_features: int
    bias: bool
    activation: str


class Dimensions(Record):
    """Vector sizes: the native one, and the smaller ones the model was trained for.

    `matryoshka` None: only `native`; empty: any size from 1 to `native`; else the listed sizes.
    """

    native: int
    matryoshka: tuple[int, ...] | None = None

    def allows(self, dimensions: int) -> bool:
        """Tell whether vectors may be cut to this size; the native size always may."""
        if dimensions == self.native:
            return True
        if self.matryoshka is None:
            return False
        if not self.matryoshka:
            return 1 <= dimensions < self.native
        return dimensions in self.matryoshka

    def describe(self) -> str:
        """Say in words which sizes are allowed."""
        if self.matryoshka is None:
            return f"only {self.native}"
        if not self.matryoshka:
            return f"1..{self.native}"
        return ", ".join(str(size) for size in sorted({*self.matryoshka, self.native}))


class TokenizerSpec(Record):
    """What the runtime must know beyond `tokenizer.json`."""

    vocab_size: int
    pad_token_id: int
    lowercase: bool = False
    num_special_tokens: int = 2


class Positions(Record):
    """How position ids count: from `offset`, not counting `skip_id` tokens where one is given.

    RoBERTa starts at pad_token_id + 1 and gives pad_token_id to every pad token, also to one that
    a text spells out (transformers, `create_position_ids_from_input_ids`).
    """

    offset: int = 0
    skip_id: int | None = None


class Graph(Record):
    """One ONNX file and the weight file it shares with its siblings."""

    dialect: Dialect
    files: tuple[str, ...]
    opset: int


class EngineEntry(Record):
    """One engine of the bundle; entries stand in order of preference, the fastest first.

    Attributes:
        backend: File name in `embed_runtime/engines`.
        file: The file a person names to ask for this engine.
        files: Every file it needs, `file` included.
        dialect: The graph it was built from.
        precision: What it computes in.
        device: Where it runs.
        producer: Library and version that built it; a plan runs only under the same one.
        targets: Compute capabilities it was built for, like "8.9"; empty on a CPU.
        max_batch_tokens: Largest total of tokens in one batch; None if it has no limit of its own.
        num_fused_attention: Attention layers that became one kernel; None where not known.
        tokens_per_second: Measured at export on the machine that exported; None if not run there.
        certified: Whether the certificate holds figures of this very engine.
        fingerprint: SHA-256 over graph, weights, producer, precision and targets.
    """

    backend: str
    file: str
    files: tuple[str, ...]
    dialect: Dialect
    precision: Precision
    device: Device
    producer: str
    targets: tuple[str, ...] = ()
    max_batch_tokens: int | None = None
    num_fused_attention: int | None = None
    tokens_per_second: float | None = None
    certified: bool
    fingerprint: str


class File(Record):
    """Size and SHA-256 (64 hex digits) of one file."""

    num_bytes: int
    sha256: str


class Manifest(Record):
    """Everything the runtime needs to know about a bundle."""

    schema_version: int
    model: Model
    precision: Precision
    pooling: Pooling
    heads: tuple[Dense, ...] = ()
    normalize: bool
    dimensions: Dimensions
    max_tokens: int
    hidden_size: int
    num_layers: int
    similarity: Similarity = "cosine"
    prompts: dict[str, str] = {}
    default_prompt: str | None = None
    tokenizer: TokenizerSpec
    positions: Positions
    outputs: tuple[OutputName, ...]
    graphs: tuple[Graph, ...]
    engines: tuple[EngineEntry, ...]
    versions: dict[str, str]
    files: dict[str, File]
