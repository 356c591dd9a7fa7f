"""The heads for words and single tokens, written once more, for one text and in float64."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embed_export.layers import Linear
from embed_export.model_spec import ModelSpec
from embed_export.modules import SpladePooling
from embed_export.probe import SparseReference, TokenReference

_DoubleArray = npt.NDArray[np.float64]

# Of longer texts, and of more tokens than these, the reference keeps no vectors: it stays small.
MAX_TEXT_TOKENS = 64
MAX_TOKENS = 512


def weigh_words(scores: npt.NDArray[np.floating], splade: SpladePooling) -> _DoubleArray:
    """Turn the scores of each word at each token, [T, V], into weights, [V]."""
    weights = np.zeros(scores.shape[1])
    for row in scores:
        logarithms = np.log1p(np.maximum(row.astype(np.float64), 0))
        if splade.double_log:
            logarithms = np.log1p(logarithms)
        pool = np.maximum if splade.strategy == "max" else np.add
        weights = pool(weights, logarithms)
    return weights


class HeadReferences:
    """Gathers what the heads of one model give for text after text."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._weights = _read(spec.token_heads.weights)
        self._vectors = _read(spec.token_heads.vectors)
        self._sparse: list[dict[int, float]] = []
        self._tokens: list[_DoubleArray] = []
        self._num_tokens = 0

    def add(self, input_ids: Sequence[int], tokens: _DoubleArray, vector: _DoubleArray) -> None:
        """Add one text.

        Args:
            input_ids: Its tokens.
            tokens: [T, H] their last hidden states.
            vector: [D] what became of them.
        """
        if self._spec.splade is not None:
            self._sparse.append({word: weight for word, weight in enumerate(vector) if weight > 0})
        elif self._weights is not None:
            matrix, bias = self._weights
            weights = np.maximum(tokens @ matrix.T + bias, 0)[:, 0]
            self._sparse.append(self._heaviest(input_ids, weights))
        self._tokens.append(self._token_vectors(tokens))

    def sparse(self) -> SparseReference | None:
        """Give the weights of all texts; None if the model gives none."""
        if self._spec.sparse is None:
            return None
        return SparseReference(
            counts=tuple(len(found) for found in self._sparse),
            ids=np.array([word for found in self._sparse for word in found], np.int32),
            weights=np.array(
                [weight for found in self._sparse for weight in found.values()], np.float32
            ),
        )

    def tokens(self) -> TokenReference:
        """Give the token vectors of those texts whose were kept."""
        return TokenReference(
            counts=tuple(len(vectors) for vectors in self._tokens),
            vectors=np.concatenate(self._tokens).astype(np.float32),
        )

    def _heaviest(self, input_ids: Sequence[int], weights: _DoubleArray) -> dict[int, float]:
        assert self._spec.sparse is not None
        found: dict[int, float] = {}
        for token_id, weight in zip(input_ids, weights.tolist(), strict=True):
            if weight > found.get(token_id, 0) and token_id not in self._spec.sparse.skipped_ids:
                found[token_id] = weight
        return dict(sorted(found.items()))

    def _token_vectors(self, tokens: _DoubleArray) -> _DoubleArray:
        """Give the vectors that `token_embed` must give; none where they are not kept."""
        if self._vectors is not None:
            matrix, bias = self._vectors
            tokens = tokens[1:] @ matrix.T + bias
            tokens = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
        num_tokens = len(tokens)
        if num_tokens > MAX_TEXT_TOKENS or self._num_tokens + num_tokens > MAX_TOKENS:
            return tokens[:0]
        self._num_tokens += num_tokens
        return tokens


def _read(head: Linear | None) -> tuple[_DoubleArray, _DoubleArray] | None:
    """Read weight and bias; a bias that is not there adds nothing."""
    if head is None:
        return None
    bias = np.zeros(head.out_features) if head.bias is None else head.bias().astype(np.float64)
    return head.weight().astype(np.float64), bias
