"""How alike two vectors are, by the measure the model was trained for."""

import numpy as np

from embed_runtime.manifest import Similarity
from embed_runtime.types import FloatArray


def compare(queries: FloatArray, documents: FloatArray, measure: Similarity) -> FloatArray:
    """Score pairs of vectors; the higher, the more alike.

    Args:
        queries: [N, D] or [1, D] float32; of unit length for `cosine`.
        documents: [N, D] float32; of unit length for `cosine`.
        measure: Distances count negative, as in Sentence-Transformers.

    Returns:
        [N] float32.
    """
    scores: FloatArray
    if measure in ("cosine", "dot"):
        scores = (queries * documents).sum(axis=1)
    elif measure == "euclidean":
        scores = -np.sqrt(np.square(queries - documents).sum(axis=1))
    else:
        scores = -np.abs(queries - documents).sum(axis=1)
    return scores


def max_sim(query: FloatArray, document: FloatArray) -> float:
    """Score two texts by the vectors of their tokens, as ColBERT does.

    Args:
        query: [T, D] float32, of unit length.
        document: [T, D] float32, of unit length.

    Returns:
        The sum over the query's tokens of the largest dot product with one of the document's.
    """
    if not len(document):
        return 0.0
    return float((query @ document.T).max(axis=1).sum())
