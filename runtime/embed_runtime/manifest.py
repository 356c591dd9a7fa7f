"""The records of `manifest.json`: all that a bundle says about itself."""

from typing import Literal, TypeAlias, dataclass_transform

import msgspec

from embed_runtime.types import OutputName, Precision, Task

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
CERTIFICATE_NAME = "certificate.json"
TOKENIZER_NAME = "tokenizer.json"
CHAT_TEMPLATE_NAME = "chat_template.jinja"

MAX_CHAT_TEMPLATE_BYTES = 1 << 20

PoolingMode: TypeAlias = Literal[
    "cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"
]
Similarity: TypeAlias = Literal["cosine", "dot", "euclidean", "manhattan"]
Activation: TypeAlias = Literal["identity", "tanh", "relu", "gelu", "sigmoid", "silu"]
Dialect: TypeAlias = Literal["padded", "packed", "packed-fp16", "packed-bf16", "packed-int8"]
Device: TypeAlias = Literal["cpu", "cuda"]


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An immutable part of the manifest; unknown keys are refused.

    A subclass repeats `kw_only`: of the options above, msgspec inherits all but that one.
    """


class Model(Record, kw_only=True):
    """Where the bundle's weights came from."""

    id: str
    architecture: str
    model_type: str
    revision: str | None = None
    license: str | None = None


class PromptMarks(Record, kw_only=True):
    """What tells the prompt in a text from the text, as GritLM has it.

    Attributes:
        start: Stands in front of an instruction.
        end: The line that ends every prompt, with an instruction or without.
    """

    start: str
    end: str


class Pooling(Record, kw_only=True):
    """How token vectors become one vector; several modes are concatenated in this order.

    The names are those of Sentence-Transformers' pooling configuration.

    Attributes:
        modes: What is computed.
        include_prompt: Whether the tokens of a prompt are pooled with the others.
        prompt_marks: How a text shows that it brings its own prompt; None where none does.
    """

    modes: tuple[PoolingMode, ...]
    include_prompt: bool = True
    prompt_marks: PromptMarks | None = None


class Dense(Record, kw_only=True):
    """A linear head after pooling."""

    in_features: int
    out_features: int
    bias: bool
    activation: Activation


class Dimensions(Record, kw_only=True):
    """Vector sizes: the native one, and the smaller ones the model was trained for.

    Attributes:
        native: What the model gives.
        matryoshka: None: only `native`; empty: any size from `smallest` to `native`; else the
            listed sizes.
        smallest: Where any size goes, the smallest.
        center: Whether the mean of a whole vector is taken from its values before it is cut. With
            the scaling to unit length that follows, this is the layer norm without weights that
            nomic-embed-text-v1.5 was trained with.
    """

    native: int
    matryoshka: tuple[int, ...] | None = None
    smallest: int = 1
    center: bool = False

    def allows(self, dimensions: int) -> bool:
        """Tell whether vectors may be cut to this size; the native size always may."""
        if dimensions == self.native:
            return True
        if self.matryoshka is None:
            return False
        if not self.matryoshka:
            return self.smallest <= dimensions < self.native
        return dimensions in self.matryoshka

    def describe(self) -> str:
        """Say in words which sizes are allowed."""
        if self.matryoshka is None:
            return f"only {self.native}"
        if not self.matryoshka:
            return f"{self.smallest}..{self.native}"
        return ", ".join(str(size) for size in sorted({*self.matryoshka, self.native}))


class Sparse(Record, kw_only=True):
    """Where the weights of the vocabulary's tokens are found.

    Attributes:
        output: `embedding`: its values are the weights, one for each token of the vocabulary
            (SPLADE). `token_weights`: a token's weight is the largest one it has in the text.
        skipped_ids: Tokens that are never reported, such as those around every text.
        pooling: How SPLADE pools the tokens of a text; None for `token_weights`.
        double_log: Whether SPLADE's logits x become log1p(log1p(relu(x))), not log1p(relu(x)).
    """

    output: Literal["embedding", "token_weights"]
    skipped_ids: tuple[int, ...] = ()
    pooling: Literal["max", "sum"] | None = None
    double_log: bool = False


class TokenHead(Record, kw_only=True):
    """A linear head on every token (ColBERT): what `token_embeddings` holds instead of states.

    Attributes:
        dimensions: Size of a token's vector.
        normalize: Whether the reader scales it to unit length.
        num_dropped: First tokens of a text that the reader leaves out.
    """

    dimensions: int
    normalize: bool
    num_dropped: int


class TokenizerSpec(Record, kw_only=True):
    """What the runtime must know beyond `tokenizer.json`."""

    vocab_size: int
    pad_token_id: int
    num_special_tokens: int = 2


class ChatTemplate(Record, kw_only=True):
    """How a conversation becomes one text: a Jinja template, and what it knows by name.

    `special_tokens` has the texts of tokens by the names that templates use, like "bos_token".
    """

    file: str
    special_tokens: dict[str, str] = {}


class Positions(Record, kw_only=True):
    """How position ids count: from `offset`, not counting `skip_id` tokens where one is given.

    RoBERTa starts at pad_token_id + 1 and gives pad_token_id to every pad token, also to one that
    a text spells out (transformers, `create_position_ids_from_input_ids`).
    """

    offset: int = 0
    skip_id: int | None = None


class Graph(Record, kw_only=True):
    """One ONNX file and the weight file it shares with its siblings."""

    dialect: Dialect
    files: tuple[str, ...]
    opset: int


class EngineEntry(Record, kw_only=True):
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


class File(Record, kw_only=True):
    """Size and SHA-256 (64 hex digits) of one file."""

    num_bytes: int
    sha256: str


class PrecisionPolicy(Record, kw_only=True):
    """What the model can be exported in.

    Attributes:
        max_activation: Largest absolute activation of the original on the probe texts.
        allowed: Precisions whose range holds that, of those the family has.
    """

    max_activation: float
    allowed: tuple[Precision, ...]


class Manifest(Record, kw_only=True):
    """Everything the runtime needs to know about a bundle.

    `adapters` names the low-rank adapters in the graphs, in the order of their ids; each is the
    name of a prompt too, and a request that names that prompt gets both.
    """

    schema_version: int
    model: Model
    precision: Precision
    precision_policy: PrecisionPolicy | None = None
    pooling: Pooling
    heads: tuple[Dense, ...] = ()
    sparse: Sparse | None = None
    token_head: TokenHead | None = None
    normalize: bool
    dimensions: Dimensions
    max_tokens: int
    hidden_size: int
    num_layers: int
    similarity: Similarity = "cosine"
    prompts: dict[str, str] = {}
    adapters: tuple[str, ...] = ()
    default_prompt: str | None = None
    tokenizer: TokenizerSpec
    chat_template: ChatTemplate | None = None
    positions: Positions
    outputs: tuple[OutputName, ...]
    graphs: tuple[Graph, ...]
    engines: tuple[EngineEntry, ...]
    versions: dict[str, str]
    files: dict[str, File]

    @property
    def is_splade(self) -> bool:
        """Whether the vector is weights, one for each token of the vocabulary."""
        return self.sparse is not None and self.sparse.output == "embedding"

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the bundle can be asked for."""
        has_tokens = "token_embeddings" in self.outputs
        return (
            "embed",
            *(("token_embed",) if has_tokens else ()),
            *(("sparse",) if self.sparse is not None else ()),
        )
