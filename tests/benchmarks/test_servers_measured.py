"""The commands that measure servers, on the toy model: for their correctness, not their figures."""

import logging
import shutil
from pathlib import Path

import pytest

from benchmarks import peer_servers, wrk
from benchmarks.__main__ import main
from benchmarks.records.http import HttpResult
from benchmarks.records.mix import MixResult
from benchmarks.records.startup import StartupResult
from benchmarks.results import AnyResult, read_result

ROOT = Path(__file__).parents[2]

needs_wrk = pytest.mark.skipif(
    shutil.which("wrk") is None, reason="the load generator wrk is not installed"
)


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def stored(folder: Path, command: str, *options: str) -> AnyResult:
    """Run a command on the toy model and read what it stored."""
    main([command, "--workload", "toy", "--precision", "fp32", *options, "-o", str(folder)])
    [path] = folder.glob("*.json")
    return read_result(path)


@needs_wrk
@pytest.mark.slow
def test_a_server_is_compared_with_its_engine_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--without-peers", "--seconds", "1", "--rounds", "1")
    result = stored(tmp_path, "http", *options)
    assert isinstance(result, HttpResult)
    [ours] = result.systems
    assert [load.connections for load in (*ours.many, *ours.one)] == [32, 1]
    for load in (*ours.many, *ours.one):
        assert load.failures == 0
        assert load.requests > 0
        assert 0 < load.p50_milliseconds <= load.p99_milliseconds
    assert len(ours.alone) == 1
    assert all(alone.texts_per_second > 0 for alone in ours.alone)
    for alone in ours.alone:
        assert alone.engine_milliseconds > 0
        assert alone.cached_milliseconds > 0
    assert 22 <= result.texts.mean <= 46
    assert f"| embed-runtime | {ours.engine} | fp32 |" in capsys.readouterr().out
    assert [path.read_bytes()[:4] for path in tmp_path.glob("*.png")] == [b"\x89PNG"]


@needs_wrk
@pytest.mark.slow
def test_queries_are_measured_beside_documents(tmp_path: Path) -> None:
    result = stored(tmp_path, "mix", "--document-tokens", "60", "--seconds", "1")
    assert isinstance(result, MixResult)
    assert result.tokens_per_document == 60
    assert 22 <= result.tokens_per_query <= 38
    [one] = result.rounds
    streams = (one.queries_alone, one.bulk_alone, one.queries, one.bulk)
    assert [stream.connections for stream in streams] == [1, 16, 1, 16]
    assert all(stream.requests > 0 for stream in streams)
    assert not any(stream.failures for stream in streams)


@pytest.mark.slow
def test_a_start_is_measured_up_to_the_first_vector(tmp_path: Path) -> None:
    result = stored(tmp_path, "startup", "--here", "--rounds", "1")
    assert isinstance(result, StartupResult)
    assert [one.engine.split()[0] for one in result.engines] == ["onnxruntime", "openvino"]
    for one in result.engines:
        assert (one.extras, one.environment_bytes) == ((), None)
        for start in (*one.server, *one.offline):
            assert start.seconds > 0
            assert start.resident_bytes > start.private_bytes > 2**20
    assert [path.read_bytes()[:4] for path in tmp_path.glob("*.png")] == [b"\x89PNG"]


def test_a_server_without_its_environment_is_left_out_with_a_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def find_none(_name: str) -> None:
        return None

    monkeypatch.setattr(peer_servers, "find_interpreter", find_none)
    with caplog.at_level(logging.INFO):
        assert peer_servers.peer_servers(Path("checkpoint"), cores=range(2)) == []
    assert "python -m benchmarks setup vllm" in caplog.text
    assert "python -m benchmarks setup infinity" in caplog.text


def test_without_wrk_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match="apt install wrk"):
        wrk.find_wrk()
