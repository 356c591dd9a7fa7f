"""Cutting, normalizing and every encoding of vectors."""

import binascii

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embed_runtime import InputError
from embed_runtime.types import FloatArray
from embed_runtime.vectors import (
    EmbedDtype,
    finish,
    to_binary,
    to_bytes,
    to_int8,
    to_ubinary,
    to_uint8,
)

DTYPES: list[EmbedDtype] = ["float32", "float16", "bfloat16", "fp8_e4m3", "fp8_e5m2"]

# What other people's code rounds to; ml_dtypes follows the OCP specification.
REFERENCE = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
}


def finite_vectors(limit: float) -> st.SearchStrategy[FloatArray]:
    return hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 12)),
        elements=st.floats(-limit, limit, width=32),
    )


class TestFinish:
    def test_cuts_before_it_normalizes(self) -> None:
        vectors = np.array([[3, 4, 12, 0]], np.float32)
        finished = finish(vectors, dimensions=2, normalize=True)
        assert np.allclose(finished, [[0.6, 0.8]], atol=1e-7)
        assert finished.dtype == np.float32

    def test_cuts_without_normalizing(self) -> None:
        vectors = np.array([[3, 4, 12, 0]], np.float32)
        assert finish(vectors, dimensions=3, normalize=False).tolist() == [[3, 4, 12]]

    def test_zero_stays_zero(self) -> None:
        assert not finish(np.zeros((2, 8), np.float32), dimensions=4, normalize=True).any()

    @given(finite_vectors(limit=2.0**40), st.integers(1, 12))
    def test_lengths_are_one_or_the_vector_is_tiny(
        self, vectors: FloatArray, dimensions: int
    ) -> None:
        kept = vectors[:, :dimensions].astype(np.float64)
        finished = finish(vectors, dimensions=dimensions, normalize=True)
        norms = np.linalg.norm(kept, axis=1)
        for length, norm in zip(np.linalg.norm(finished, axis=1), norms, strict=True):
            # Squares below the smallest float32 are lost, so tiny vectors may stay short.
            assert length == pytest.approx(1, abs=1e-5) if norm > 1e-12 else length <= 1.001


class TestBytes:
    # The worked example of the API contract, section 7.1.
    VECTOR = np.array([[1.0, -2.0, 0.5, 0.25]], np.float32)

    @pytest.mark.parametrize(
        ("dtype", "little_hex"),
        [
            ("float32", "0000803f000000c00000003f0000803e"),
            ("float16", "003c00c000380034"),
            ("bfloat16", "803f00c0003f803e"),
            ("fp8_e4m3", "38c03028"),
            ("fp8_e5m2", "3cc03834"),
        ],
    )
    def test_worked_example(self, dtype: EmbedDtype, little_hex: str) -> None:
        found = to_bytes(self.VECTOR, dtype=dtype, endianness="little")
        assert binascii.hexlify(found.tobytes()).decode() == little_hex

    def test_takes_a_cut_view(self) -> None:
        vectors = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
        for dtype in DTYPES:
            cut, copied = vectors[:, :3], vectors[:, :3].copy()
            assert np.array_equal(to_bytes(cut, dtype=dtype), to_bytes(copied, dtype=dtype))

    @given(finite_vectors(limit=448.0))
    def test_rounds_like_the_reference(self, vectors: FloatArray) -> None:
        for dtype in DTYPES:
            expected = vectors.astype(REFERENCE[dtype]).view(np.uint8)
            assert np.array_equal(to_bytes(vectors, dtype=dtype), expected), dtype

    @pytest.mark.parametrize("dtype", DTYPES[1:])
    def test_every_representable_value_and_every_midpoint(self, dtype: EmbedDtype) -> None:
        narrow = np.dtype(REFERENCE[dtype])
        codes = np.arange(1 << (8 * narrow.itemsize), dtype=f"u{narrow.itemsize}")
        exact = codes.view(narrow).astype(np.float32)
        exact = np.unique(exact[np.isfinite(exact)])
        midpoints = exact[1:] / 2 + exact[:-1] / 2
        around = [exact, midpoints, np.nextafter(midpoints, -np.inf), np.nextafter(midpoints, 0)]
        vectors = np.concatenate(around, dtype=np.float32)[None]
        expected = vectors.astype(narrow).view(np.uint8)
        assert np.array_equal(to_bytes(vectors, dtype=dtype), expected)

    def test_too_large_and_not_a_number(self) -> None:
        vectors = np.array([[1e6, -1e6, np.inf, -np.inf, np.nan]], np.float32)
        # As torch 2.13 casts: E4M3 has no infinity and stops at 448.
        assert to_bytes(vectors, dtype="fp8_e4m3").tolist() == [[0x7E, 0xFE, 0x7E, 0xFE, 0x7F]]
        assert to_bytes(vectors, dtype="fp8_e5m2").tolist() == [[0x7C, 0xFC, 0x7C, 0xFC, 0x7F]]
        halves = to_bytes(vectors, dtype="float16").view(np.float16)
        assert halves[0, :4].tolist() == [np.inf, -np.inf, np.inf, -np.inf]
        assert np.isnan(halves[0, 4])
        nan = to_bytes(np.array([[-np.nan]], np.float32), dtype="bfloat16").view(ml_dtypes.bfloat16)
        assert np.isnan(nan.astype(np.float32)).all()


class TestBinary:
    # The worked example of the API contract, section 7.2.
    VECTOR = np.array(
        [[0.5, -0.1, 0.0, 0.3, -0.2, -0.7, 0.9, -0.4, -0.3, -0.1, -0.2, 0.4, 0.1, -0.6, 0.2, 0.8]],
        np.float32,
    )

    def test_worked_example(self) -> None:
        assert to_ubinary(self.VECTOR).tolist() == [[178, 27]]
        assert to_binary(self.VECTOR).tolist() == [[50, -101]]
        assert to_binary(self.VECTOR).dtype == np.int8

    def test_zero_counts_as_positive_and_nan_does_not(self) -> None:
        vectors = np.array([[0.0, -0.0, np.nan, np.inf, -np.inf, -1, 1, -1]], np.float32)
        assert to_ubinary(vectors).tolist() == [[0b11010010]]

    @given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 4))))
    def test_bits_decode_to_signs(self, packed: np.ndarray) -> None:
        signs = np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1
        assert np.array_equal(to_ubinary(signs), packed)
        assert np.array_equal(to_binary(signs).astype(np.int16), packed.astype(np.int16) - 128)

    def test_refuses_other_than_multiples_of_8(self) -> None:
        for convert in (to_ubinary, to_binary):
            with pytest.raises(InputError, match="multiple of 8 dimensions, not 12"):
                convert(np.ones((1, 12), np.float32))


class TestInt8:
    @given(
        hnp.arrays(
            np.float32,
            hnp.array_shapes(min_dims=2, max_dims=2, max_side=20),
            elements=st.floats(-(2.0**100), 2.0**100, width=32),
        )
    )
    def test_each_vector_has_a_scale_of_its_own(self, vectors: FloatArray) -> None:
        rounded = to_int8(vectors).astype(np.float64)
        for row, original in zip(rounded, vectors.astype(np.float64), strict=True):
            largest = np.abs(original).max()
            if not largest:
                assert not row.any()
                continue
            assert np.abs(row).max() == 127
            assert np.abs(row / 127 * largest - original).max() <= largest / 127 * 0.501
        assert np.array_equal(to_uint8(vectors), rounded + 128)
        assert to_uint8(vectors).dtype == np.uint8
