"""What travels: one value type for each arrow between a request and its vectors.

Shape letters, the same everywhere: B rows in a batch, T tokens (of one row, or of a whole ragged
batch), S tokens in the longest row, D embedding dimensions, H hidden size, V vocabulary size,
N inputs of a request.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

Task: TypeAlias = Literal["embed", "token_embed", "sparse"]
Truncate: TypeAlias = Literal["END", "START", "NONE"]
Precision: TypeAlias = Literal["fp32", "fp16", "bf16", "int8"]
OutputName: TypeAlias = Literal["embedding", "pooled", "token_embeddings", "token_weights"]

FloatArray: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int32]

TextOrIds: TypeAlias = str | Sequence[int]

# The adapter of an input that has none: it gets the base weights.
NO_ADAPTER = -1

# The outputs with one row for each token; the others have one for each input.
TOKEN_OUTPUTS: frozenset[OutputName] = frozenset({"token_embeddings", "token_weights"})

DataT = TypeVar("DataT")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """What a caller asks for, whatever dialect it was asked in.

    Attributes:
        inputs: Texts, or token ids that are used verbatim.
        task: `embed` for one vector per input, `token_embed` for one vector per token, `sparse`
            for weights of tokens of the vocabulary.
        prompt_name: Name of a prompt in the bundle, put in front of every text; None for the
            bundle's default prompt, if it has one. Where the model has an adapter of this name,
            that is used too.
        prompt: The prompt itself, instead of a name.
        dimensions: Keep this many leading values of each vector; None keeps all.
        normalize: Scale vectors to unit length; None does what the model does.
        truncate: Which end of an overlong input is cut; NONE refuses it instead.
        max_tokens: Cut at this length instead of the model's; None for the model's.
        add_special_tokens: Whether texts get the tokenizer's own first and last tokens.
        chunk: Read an input that is longer than the model in pieces of its length; the input's
            vector is their mean, weighted by length. It is cut at `max_tokens` only, which may
            be above the model's.
        late_chunking: Read all inputs as one text, the prompt in front of the first; an input's
            vector is the mean of its own tokens' vectors.
        use_cache: Whether results may come from the result cache and stay there, if there is one.
        name_input: What error messages call an input, by its position.
    """

    inputs: Sequence[TextOrIds]
    task: Task = "embed"
    prompt_name: str | None = None
    prompt: str | None = None
    dimensions: int | None = None
    normalize: bool | None = None
    truncate: Truncate = "END"
    max_tokens: int | None = None
    add_special_tokens: bool = True
    chunk: bool = False
    late_chunking: bool = False
    use_cache: bool = True
    name_input: Callable[[int], str] = "input {}".format


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedInput:
    """One input, ready for the model.

    Attributes:
        input_ids: [T] int32, special tokens included, at least one.
        num_skipped: Leading tokens that are attended to but left out of pooling (prompts of
            models with `include_prompt: false`); 0 for every other model.
        adapter: Index in the manifest's `adapters`, or `NO_ADAPTER`.
    """

    input_ids: IntArray
    num_skipped: int = 0
    adapter: int = NO_ADAPTER

    @property
    def num_tokens(self) -> int:
        """Number of tokens, special tokens included."""
        return len(self.input_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Ragged rows for one engine call; padding, masks and buckets are the engine's affair.

    Attributes:
        input_ids: [T] int32, the rows one after another.
        cu_seqlens: [B+1] int32, row b is `input_ids[cu_seqlens[b]:cu_seqlens[b+1]]`.
        num_skipped: [B] int32, see `TokenizedInput.num_skipped`.
        adapters: [B] int32, see `TokenizedInput.adapter`.
        outputs: What to compute.
    """

    input_ids: IntArray
    cu_seqlens: IntArray
    num_skipped: IntArray
    adapters: IntArray
    outputs: tuple[OutputName, ...] = ("embedding",)

    @property
    def num_rows(self) -> int:
        """B."""
        return len(self.cu_seqlens) - 1

    @property
    def num_tokens(self) -> int:
        """T, over all rows."""
        return len(self.input_ids)

    @property
    def lengths(self) -> IntArray:
        """[B] int32, tokens of each row."""
        return np.diff(self.cu_seqlens)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedResult:
    """The answer to one request, in request order.

    Attributes:
        vectors: [N, D] float32 for `embed`; [total, D] for `token_embed`; for `sparse` [total],
            the weights of the tokens in `token_ids`.
        offsets: [N+1] int64, input i owns `vectors[offsets[i]:offsets[i+1]]`.
        num_tokens: [N] int32, tokens the model read for each input, special tokens included.
        token_ids: [total] int32 for `sparse`, ascending within an input; None for other tasks.
    """

    vectors: FloatArray
    offsets: npt.NDArray[np.int64]
    num_tokens: IntArray
    token_ids: IntArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingOutput(Generic[DataT]):
    """One input's result from `Runtime.encode`.

    Attributes:
        data: [D] float32 for `embed`, [T, D] for `token_embed`, and for `sparse` the positive
            weights by token id, ids ascending.
        num_tokens: Tokens the model read, special tokens included.
    """

    data: DataT
    num_tokens: int
