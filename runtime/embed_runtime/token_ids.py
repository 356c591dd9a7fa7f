"""Token ids as callers give them, checked; and the inputs that are made of them."""

import reprlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from embed_runtime.errors import InputError
from embed_runtime.types import TextOrIds, TokenizedInput


def check_inputs(inputs: Sequence[TextOrIds]) -> Sequence[TextOrIds]:
    """Refuse what is no list of inputs."""
    if isinstance(inputs, str) or not len(inputs):
        raise InputError("inputs must be a list of at least one text", param="inputs")
    return inputs


def is_list(ids: Sequence[int]) -> TypeGuard[list[int]]:
    """Tell whether these could be ids; `_join` looks at them all at once."""
    return type(ids) is list


def check_ids(ids: Sequence[int], index: int) -> list[int]:
    """Refuse what a caller gave instead of token ids."""
    try:
        array = np.asarray(ids)
        # Numpy would take True for 1; and an empty list has no type yet.
        valid = array.ndim == 1 and bool not in set(map(type, ids))
        if valid and (array.dtype.kind in "iu" or not array.size):
            checked: list[int] = array.tolist()
            return checked
    except (TypeError, ValueError, OverflowError):
        pass
    raise _no_ids(ids, index)


def to_inputs(
    rows: Sequence[list[int]], skipped: Sequence[int], *, vocab_size: int, first_index: int = 0
) -> list[TokenizedInput]:
    """Check the ids of all rows at once: numpy costs the same for many rows as for one.

    Args:
        rows: The ids of each input.
        skipped: How many of them pooling leaves out.
        vocab_size: They must be below this.
        first_index: Position of the first input, for error messages.

    Raises:
        InputError: A row is empty, or has no token to pool, or one outside the vocabulary.
    """
    lengths = [len(row) for row in rows]
    for index, (length, num_skipped) in enumerate(zip(lengths, skipped, strict=True), first_index):
        if length <= num_skipped:
            raise _nothing_to_pool(index, length)
    ends = list(accumulate(lengths))
    ids = _join(rows, ends[-1], first_index)
    if ids.view(np.uint64).max() >= vocab_size:  # what is negative is large there
        wrong = int(np.flatnonzero((ids < 0) | (ids >= vocab_size))[0])
        index = first_index + bisect_right(ends, wrong)
        raise InputError(
            f"input {index}: token id {ids[wrong]} is outside 0..{vocab_size - 1}",
            param="inputs",
            index=index,
        )
    narrow = ids.astype(np.int32)
    return [
        TokenizedInput(input_ids=narrow[end - length : end], num_skipped=num_skipped)
        for length, end, num_skipped in zip(lengths, ends, skipped, strict=True)
    ]


def _nothing_to_pool(index: int, length: int) -> InputError:
    if not length:
        return InputError(f"input {index} is empty", param="inputs", index=index)
    return InputError(
        f"input {index}: the prompt takes all of its {length} tokens and leaves none to pool;"
        " shorten the prompt",
        param="prompt",
        index=index,
    )


def _join(rows: Sequence[list[int]], num_tokens: int, first_index: int) -> npt.NDArray[np.int64]:
    """Lay rows one after another; refuse what is no token id."""
    if set(map(type, chain.from_iterable(rows))) != {int}:
        rows = [check_ids(row, index) for index, row in enumerate(rows, first_index)]
    try:
        return np.fromiter(chain.from_iterable(rows), np.int64, num_tokens)
    except OverflowError as error:
        index, row = next(
            (index, row)
            for index, row in enumerate(rows, first_index)
            if not -(2**63) <= min(row) <= max(row) < 2**63
        )
        raise _no_ids(row, index) from error


def _no_ids(ids: Sequence[int], index: int) -> InputError:
    return InputError(
        f"input {index} must be a text or a flat list of token ids, not {reprlib.repr(ids)}",
        param="inputs",
        index=index,
    )
