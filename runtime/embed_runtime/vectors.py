"""What is done to vectors after the model, and how they look as bytes. Pure numpy."""

import sys
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from embed_runtime.errors import InputError
from embed_runtime.types import FloatArray

EmbedDtype: TypeAlias = Literal["float32", "float16", "bfloat16", "fp8_e4m3", "fp8_e5m2"]
Endianness: TypeAlias = Literal["native", "big", "little"]

ByteArray: TypeAlias = npt.NDArray[np.uint8]

# torch.nn.functional.normalize, and with it Sentence-Transformers, divides by no less.
_MIN_NORM = 1e-12


def finish(vectors: FloatArray, *, dimensions: int | None, normalize: bool) -> FloatArray:
    """Cut vectors to their leading values, then scale them to unit length: in that order.

    Args:
        vectors: [N, D] float32.
        dimensions: Values to keep; None keeps all.
        normalize: Whether to scale; a vector of zeros stays zero.

    Returns:
        [N, dimensions] float32; a view of `vectors` where nothing had to be computed.
    """
    vectors = vectors[:, :dimensions]
    if not normalize:
        return vectors
    norms: FloatArray = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    np.maximum(norms, _MIN_NORM, out=norms)
    return vectors / norms


def to_bytes(
    vectors: FloatArray, *, dtype: EmbedDtype = "float32", endianness: Endianness = "native"
) -> ByteArray:
    """Give the bytes of vectors in a narrower type, rounded to nearest, ties to even.

    Args:
        vectors: [N, D] float32.
        dtype: bfloat16 is the upper half of a float32; fp8 is OCP E4M3 (no infinities: too large
            values become 448) and E5M2.
        endianness: Order of the bytes within one value; no matter for fp8.

    Returns:
        [N, D * bytes of one value] uint8, row after row in memory; not always a copy.
    """
    values = _convert(vectors, dtype)
    if endianness not in ("native", sys.byteorder):
        values = values.byteswap()
    return np.ascontiguousarray(values).view(np.uint8)


def to_ubinary(vectors: FloatArray) -> ByteArray:
    """Pack the signs of vectors into bits: 1 for values >= 0, the first in the highest bit.

    Args:
        vectors: [N, D] float32; a NaN gives 0.

    Returns:
        [N, D / 8] uint8.

    Raises:
        InputError: D is not a multiple of 8.
    """
    if vectors.shape[1] % 8:
        raise InputError(
            f"binary vectors need a multiple of 8 dimensions, not {vectors.shape[1]}",
            param="dimensions",
        )
    return np.packbits(vectors >= 0, axis=1)


def to_binary(vectors: FloatArray) -> npt.NDArray[np.int8]:
    """Pack signs like `to_ubinary`, each byte less 128 (Cohere's offset, not two's complement).

    Args:
        vectors: [N, D] float32.

    Returns:
        [N, D / 8] int8.

    Raises:
        InputError: D is not a multiple of 8.
    """
    # Taking 128 off flips the highest bit.
    return (to_ubinary(vectors) ^ np.uint8(0x80)).view(np.int8)


def to_int8(vectors: FloatArray) -> npt.NDArray[np.int8]:
    """Round vectors to whole numbers, each on a scale of its own: its largest value becomes 127.

    Cosines between such vectors differ from the originals' by rounding alone; lengths and dot
    products mean nothing, because every vector has another scale.

    Args:
        vectors: [N, D] float32, finite.

    Returns:
        [N, D] int8, from -127 to 127; a vector of zeros stays zero.
    """
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = vectors / largest * np.float32(127)
    return np.where(largest > 0, np.rint(scaled), 0).astype(np.int8)


def to_uint8(vectors: FloatArray) -> ByteArray:
    """Round vectors like `to_int8`, each value plus 128.

    Args:
        vectors: [N, D] float32, finite.

    Returns:
        [N, D] uint8, from 1 to 255; 128 stands for zero.
    """
    return (to_int8(vectors).view(np.uint8)) ^ np.uint8(0x80)


def _convert(vectors: FloatArray, dtype: EmbedDtype) -> npt.NDArray[np.generic]:
    """Round to a type, in the machine's own byte order; integers stand for bit patterns."""
    if dtype == "float32":
        return vectors
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return vectors.astype(np.float16)
    if dtype == "bfloat16":
        return _to_bfloat16(vectors)
    if dtype == "fp8_e4m3":
        return _to_fp8(vectors, mantissa_bits=3, bias=7, largest=0x7E)
    return _to_fp8(vectors, mantissa_bits=2, bias=15, largest=0x7C)


def _to_bfloat16(vectors: FloatArray) -> npt.NDArray[np.uint16]:
    """Round to the upper 16 bits of a float32."""
    bits = np.ascontiguousarray(vectors).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    with np.errstate(over="ignore"):
        rounded = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    # Rounding could carry a NaN over into the sign bit, or make it infinite.
    return np.where(np.isnan(vectors), 0x7FC0, rounded).astype(np.uint16)


def _to_fp8(vectors: FloatArray, *, mantissa_bits: int, bias: int, largest: int) -> ByteArray:
    """Round to 8 bits: sign, exponent, mantissa (OCP 8-bit floating point specification, 1.0).

    `largest` is the code that too large values become: the largest number where the format has no
    infinity (as torch 2.13 casts), else infinity.
    """
    magnitudes = np.abs(vectors)
    bits = magnitudes.view(np.uint32)
    shift = np.uint32(23 - mantissa_bits)
    odd = (bits >> shift) & np.uint32(1)
    rounded = (bits + (np.uint32(1) << (shift - np.uint32(1))) - np.uint32(1) + odd) >> shift
    normal = rounded - np.uint32((127 - bias) << mantissa_bits)
    # Below the normal range the codes are multiples of the least number. Adding the float32 whose
    # last bit is worth just that rounds to such a multiple, and leaves it in the low bits.
    anchor = np.float32(2.0 ** (24 - bias - mantissa_bits))
    with np.errstate(invalid="ignore"):  # signaling NaNs, which get their own code below
        subnormal = (magnitudes + anchor).view(np.uint32) - anchor.view(np.uint32)
    codes = np.where(magnitudes < np.float32(2.0 ** (1 - bias)), subnormal, normal)
    codes = np.where(np.isnan(vectors), 0x7F, np.minimum(codes, largest))
    return (codes | np.where(np.signbit(vectors), 0x80, 0)).astype(np.uint8)
