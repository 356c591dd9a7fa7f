"""Ragged batches to the inputs of a graph, one function for each dialect; no loop over rows.

Integer inputs are int64, masks of the packed dialects float32: the types that graphs declare.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embed_runtime.manifest import Manifest, Positions
from embed_runtime.types import Batch, FloatArray

GraphInput: TypeAlias = npt.NDArray[np.int64] | FloatArray
GraphInputs: TypeAlias = dict[str, GraphInput]
_BoolArray: TypeAlias = npt.NDArray[np.bool_]


def padded_inputs(batch: Batch, manifest: Manifest) -> GraphInputs:
    """Make the inputs of the `padded` dialect.

    Returns:
        `input_ids` and `attention_mask`, [B, S] int64, rows padded at their end, and `pool_mask`,
        [B, S] float32, where the model leaves prompts out of pooling; `adapter_ids`, [B] int64,
        where it has adapters.
    """
    is_token = _token_slots(batch)
    input_ids = np.full(is_token.shape, manifest.tokenizer.pad_token_id, np.int64)
    input_ids[is_token] = batch.input_ids
    inputs: GraphInputs = {
        "input_ids": input_ids,
        "attention_mask": is_token.astype(np.int64),
    }
    if manifest.adapters:
        inputs["adapter_ids"] = batch.adapters.astype(np.int64)
    return inputs | _pool_mask(batch, manifest, is_token)


def packed_inputs(batch: Batch, manifest: Manifest) -> GraphInputs:
    """Make the inputs of the `packed` dialects.

    Returns:
        `input_ids`, `position_ids` and `unpad_index`, [T] int64; `pad_index`, [B, S] int64;
        `attention_mask`, [B, S] float32; `pool_mask`, [B, S] float32, where the model leaves
        prompts out of pooling; and `adapter_ids`, [T] int64, where it has adapters.
    """
    is_token = _token_slots(batch)
    slots = np.arange(is_token.shape[1], dtype=np.int64)
    inputs: GraphInputs = {
        "input_ids": batch.input_ids.astype(np.int64),
        "position_ids": _position_ids(batch, manifest.positions),
        # Slots of padding read token 0, and the mask hides them.
        "pad_index": (batch.cu_seqlens[:-1, None] + slots) * is_token,
        "unpad_index": np.flatnonzero(is_token).astype(np.int64, copy=False),
        "attention_mask": is_token.astype(np.float32),
    }
    if manifest.adapters:
        inputs["adapter_ids"] = np.repeat(batch.adapters, batch.lengths).astype(np.int64)
    return inputs | _pool_mask(batch, manifest, is_token)


def round_up(inputs: GraphInputs) -> GraphInputs:
    """Fill inputs of a `packed` dialect up to rounder sizes: T by a 16th at most, S by an 8th.

    For engines that take longer where a size is new to them, or odd. What is added belongs to no
    row: outputs with a row for each token have more rows at their end, and no vector changes but
    as it does with its neighbours.
    """
    num_slots = inputs["pad_index"].shape[1]
    more_slots = -num_slots % _round_step(num_slots, 8)
    more_tokens = -len(inputs["input_ids"]) % _round_step(len(inputs["input_ids"]), 16)
    rounded: GraphInputs = {}
    for name, array in inputs.items():
        if name == "unpad_index":
            array = array + array // num_slots * more_slots
        more = ((0, 0), (0, more_slots)) if array.ndim == 2 else (0, more_tokens)
        filled: npt.NDArray[Any] = np.pad(array, more)
        rounded[name] = filled
    return rounded


def _round_step(size: int, share: int) -> int:
    """Return the largest power of two that is a `share`-th of a size, or 1."""
    return 1 << max((size // share).bit_length() - 1, 0)


def packed_input_names(manifest: Manifest) -> set[str]:
    """List what `packed_inputs` makes for a model."""
    names = {"input_ids", "position_ids", "pad_index", "unpad_index", "attention_mask"}
    if not manifest.pooling.include_prompt:
        names.add("pool_mask")
    if manifest.adapters:
        names.add("adapter_ids")
    return names


def _token_slots(batch: Batch) -> _BoolArray:
    """[B, S] bool: which slots hold a token."""
    lengths = batch.lengths[:, None]
    is_token: _BoolArray = np.arange(lengths.max(), dtype=np.int32) < lengths
    return is_token


def _pool_mask(batch: Batch, manifest: Manifest, is_token: _BoolArray) -> GraphInputs:
    if manifest.pooling.include_prompt:
        return {}
    is_pooled = np.arange(is_token.shape[1], dtype=np.int32) >= batch.num_skipped[:, None]
    return {"pool_mask": (is_token & is_pooled).astype(np.float32)}


def _position_ids(batch: Batch, positions: Positions) -> npt.NDArray[np.int64]:
    """[T] int64: count within each row, from `offset`, leaving `skip_id` tokens out."""
    if positions.skip_id is None:
        counted = np.ones(batch.num_tokens, np.int64)
    else:
        counted = (batch.input_ids != positions.skip_id).astype(np.int64)
    total = np.concatenate(([0], counted.cumsum()))
    ordinals = total[1:] - np.repeat(total[batch.cu_seqlens[:-1]], batch.lengths)
    position_ids: npt.NDArray[np.int64] = ordinals * counted + (positions.offset - 1)
    return position_ids
