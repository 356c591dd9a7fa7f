"""The certificate: what is written is read, and nothing else is."""

from pathlib import Path

import msgspec
import pytest

from embed_runtime import BundleError
from embed_runtime.certificate import (
    Certificate,
    EngineCertificate,
    Figures,
    Limits,
    Machine,
    ReferenceIdentity,
    TaskFigures,
    read_certificate,
    write_certificate,
)


@pytest.fixture
def certificate() -> Certificate:
    proven = EngineCertificate(
        backend="openvino",
        file="graphs/packed.onnx",
        precision="fp32",
        device="cpu",
        producer="openvino 2026.4.1",
        fingerprint="0" * 64,
        passed=True,
        figures=Figures(
            cosine_min=0.99999987,
            cosine_mean=0.9999999,
            max_abs_difference=3e-7,
            max_norm_error=1e-7,
            sign_flips=0.0001,
            batch_difference_alone=2e-7,
            batch_difference_shuffled=1e-7,
            num_non_finite=0,
            num_texts=71,
            num_tokens=2880,
            tokens_per_second=7612.3,
        ),
        limits=Limits(
            cosine_min=0.99999,
            cosine_mean=None,
            max_norm_error=0.0045,
            batch_difference=1e-5,
            max_activation=None,
        ),
        machine=Machine(cpu="AMD EPYC", num_cpus=2, gpu=None, system="Linux 6.1 x86_64"),
        date="2026-11-24T18:35:00Z",
    )
    waiting = EngineCertificate(
        backend="tensorrt_rtx",
        file="model.plan",
        precision="fp16",
        device="cuda",
        producer="tensorrt_rtx 1.7.1",
        fingerprint="1" * 64,
        passed=False,
        reason="no NVIDIA GPU",
    )
    return Certificate(
        model="sentence-transformers/all-MiniLM-L6-v2",
        precision="fp32",
        reference=ReferenceIdentity(
            dtype="float32",
            versions={"transformers": "5.23.0", "torch": "2.13.0"},
            max_activation=12.5,
        ),
        engines=(proven, waiting),
    )


def test_is_read_as_it_was_written(tmp_path: Path, certificate: Certificate) -> None:
    write_certificate(tmp_path, certificate)
    read = read_certificate(tmp_path)
    assert len(set(read.sha256)) > 1
    assert msgspec.structs.replace(read, sha256=certificate.sha256) == certificate
    assert [path.name for path in tmp_path.iterdir()] == ["certificate.json"]


def test_writing_what_was_read_changes_nothing(tmp_path: Path, certificate: Certificate) -> None:
    write_certificate(tmp_path, certificate)
    written = (tmp_path / "certificate.json").read_bytes()
    write_certificate(tmp_path, read_certificate(tmp_path))
    assert (tmp_path / "certificate.json").read_bytes() == written


def test_any_changed_byte_is_noticed(tmp_path: Path, certificate: Certificate) -> None:
    write_certificate(tmp_path, certificate)
    path = tmp_path / "certificate.json"
    written = path.read_bytes()
    for position in range(0, len(written), 7):
        changed = bytearray(written)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(BundleError, match=r"certificate\.json") as caught:
            read_certificate(tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"schema_version": "1"}',
        b'{"schema_version": 1}',
        b'{"schema_version": 1, "engines": ' + b"[" * 200_000,
        b'{"schema_version": 1, "new_key": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    ],
)
def test_refuses_what_is_no_certificate(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "certificate.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"certificate\.json") as caught:
        read_certificate(tmp_path)
    assert "\n" not in str(caught.value)


def test_refuses_another_version_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "certificate.json").write_bytes(b'{"schema_version": 2, "later": true}')
    with pytest.raises(BundleError, match=r"schema version 2.* 1"):
        read_certificate(tmp_path)


def test_names_a_missing_certificate(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"certificate\.json.*No such file"):
        read_certificate(tmp_path)


def test_sums_up_in_five_lines(certificate: Certificate) -> None:
    verdict, reference, cosine, batch, speed = certificate.summary().split("\n")
    assert "openvino fp32 passed" in verdict
    assert "tensorrt_rtx fp16 not run (no NVIDIA GPU)" in verdict
    assert "torch 2.13.0" in reference
    assert "71 texts" in reference
    assert "0.9999999 / 0.9999999 (at least 0.99999)" in cosine
    assert "2.0e-07 (at most 1e-05)" in batch
    assert "7,612 tokens/s on AMD EPYC" in speed


def test_other_tasks_have_a_line_with_limits_of_their_own(certificate: Certificate) -> None:
    proven = certificate.engines[0]
    assert proven.figures
    assert proven.limits
    one = TaskFigures(cosine_min=0.998, cosine_mean=0.9999, max_difference=0.001, num_vectors=9)
    figures = msgspec.structs.replace(proven.figures, tasks={"token_embed": one})
    limits = msgspec.structs.replace(proven.limits, task_cosine_min=0.99)
    engine = msgspec.structs.replace(proven, figures=figures, limits=limits)
    summary = msgspec.structs.replace(certificate, engines=(engine,)).summary()
    assert "fp32 token_embed 0.9980000 / 0.9999000 (at least 0.99)\n" in summary


def test_sums_up_in_five_lines_when_nothing_was_run(certificate: Certificate) -> None:
    waiting = msgspec.structs.replace(certificate, engines=certificate.engines[1:])
    assert waiting.summary().count("\n") == 4
    assert "none" in waiting.summary()
