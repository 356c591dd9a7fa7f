"""From a model's output to the few tokens that weigh anything."""

import numpy as np

from embed_runtime.manifest import Sparse
from embed_runtime.types import FloatArray, IntArray


def to_sparse(
    values: FloatArray, input_ids: IntArray, sparse: Sparse
) -> tuple[IntArray, FloatArray]:
    """Find the positive weights of one input.

    Args:
        values: Its rows of `sparse.output`: [1, V], or [T, 1] in the order of its tokens.
        input_ids: [T] its tokens.
        sparse: What those values mean.

    Returns:
        Token ids, int32 and ascending, and their weights, float32; both fresh arrays.
    """
    if sparse.output == "embedding":
        weights = values[0]
        ids = np.flatnonzero(weights > 0)
        weights = weights[ids]
    else:
        ids, places = np.unique(input_ids, return_inverse=True)
        weights = np.zeros(len(ids), np.float32)
        np.maximum.at(weights, places, values[:, 0])
        ids, weights = ids[weights > 0], weights[weights > 0]
    kept = np.isin(ids, sparse.skipped_ids, invert=True)
    return ids[kept].astype(np.int32), weights[kept]
