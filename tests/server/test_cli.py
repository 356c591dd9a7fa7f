"""`embed-serve` before it serves: options, one-line errors, exit codes."""

import dataclasses
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from embed_runtime.config import RuntimeConfig
from embed_runtime.errors import InputError
from embed_server import cli, process
from embed_server.bundles import BundleSource
from embed_server.config import ServerConfig
from embed_server.listening import bind, listen

Options = tuple[list[BundleSource], str | None, ServerConfig, RuntimeConfig]

BUNDLE = BundleSource(path=Path("bundle"))


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Options]:
    """Run the command up to the point where it would serve."""
    served: list[Options] = []

    def serve(
        sources: list[BundleSource],
        *,
        engine: str | None,
        config: ServerConfig,
        runtime_config: RuntimeConfig,
    ) -> None:
        served.append((sources, engine, config, runtime_config))

    def run(*arguments: str) -> Options:
        assert cli.main(arguments) == 0
        return served.pop()

    monkeypatch.setattr(process, "serve", serve)
    monkeypatch.delenv(cli.API_KEY_VARIABLE, raising=False)
    return run


def fail(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command, which must end with code 2 and one line on stderr; return that line."""
    try:
        code: object = cli.main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    output = capsys.readouterr()
    assert (code, output.out, output.err.count("\n")) == (2, "", 1)
    assert output.err.startswith("error: ")
    return output.err


def test_without_options_the_configs_have_their_defaults(parse: Callable[..., Options]) -> None:
    assert parse("bundle") == ([BUNDLE], None, ServerConfig(), RuntimeConfig())


def test_options_fill_both_configs(parse: Callable[..., Options]) -> None:
    sources, engine, config, runtime_config = parse(
        *("bundle", "--engine", "openvino", "--host", "0.0.0.0", "--port", "0"),  # noqa: S104
        *("--served-model-name", "a", "b", "--api-key", "k", "--max-body-bytes", "10"),
        *("--drain-seconds", "5", "--root-path", "/x", "--log-level", "debug"),
        *("--num-threads", "3", "--max-batch-tokens", "100", "--max-queue-tokens", "200"),
    )
    assert (sources, engine) == ([BUNDLE], "openvino")
    assert config == ServerConfig(
        host="0.0.0.0",  # noqa: S104
        port=0,
        served_model_name=("a", "b"),
        api_key=("k",),
        max_body_bytes=10,
        drain_seconds=5,
        root_path="/x",
        log_level="debug",
    )
    assert runtime_config == RuntimeConfig(
        num_threads=3, max_batch_tokens=100, max_queue_tokens=200
    )


@pytest.mark.parametrize("option", ["allowed-origins", "allowed-methods", "allowed-headers"])
def test_an_empty_list_may_mean_none(parse: Callable[..., Options], option: str) -> None:
    _, _, config, _ = parse("bundle", f"--{option}", "[]")
    assert getattr(config, option.replace("-", "_")) == ()


@pytest.mark.parametrize(
    ("arguments", "origins"),
    [
        (("--allowed_origins", "https://a_b", "https://c"), ("https://a_b", "https://c")),
        (("--allowed-origins=https://a_b",), ("https://a_b",)),
        (("--allowed_origins=https://a_b",), ("https://a_b",)),
        (("--allowed-origins", '["https://a", "https://c"]'), ("https://a", "https://c")),
        (("--allowed-origins", "[half"), ("[half",)),
    ],
)
def test_options_may_be_written_as_for_vllm(
    parse: Callable[..., Options], arguments: tuple[str, ...], origins: tuple[str, ...]
) -> None:
    sources, _, config, _ = parse("bundle", *arguments)
    assert (sources, config.allowed_origins) == ([BUNDLE], origins)


def test_options_have_the_names_that_other_servers_give_them(
    parse: Callable[..., Options],
) -> None:
    _, _, config, runtime_config = parse(
        *("bundle", "--max-client-batch-size", "1", "--max-num-batched-tokens", "2"),
        *("--max-num-queued-tokens", "3", "--renderer-num-workers", "4", "--max-model-len", "5"),
        *("--enable-request-id-headers", "--enable_server_load_tracking"),
    )
    assert config.max_request_inputs == 1
    assert runtime_config == RuntimeConfig(
        max_batch_tokens=2, max_queue_tokens=3, num_tokenizer_threads=4, max_model_len=5
    )


def test_the_environments_key_counts_only_without_a_flag(
    parse: Callable[..., Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cli.API_KEY_VARIABLE, "from-environment")
    assert parse("bundle")[2].api_key == ("from-environment",)
    assert parse("bundle", "--api-key", "a", "b")[2].api_key == ("a", "b")


@pytest.mark.parametrize("key", ["", "\n"])
def test_an_empty_key_in_the_environment_does_not_open_the_server(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv(cli.API_KEY_VARIABLE, key)
    assert "EMBED_API_KEY is set but empty" in fail(capsys, "bundle")


@pytest.mark.parametrize("arguments", [("--api-key", "[]"), ("--api_key=[]",)])
def test_an_empty_list_of_keys_does_not_open_the_server(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setenv(cli.API_KEY_VARIABLE, "from-environment")
    assert "--api-key [] names none" in fail(capsys, "bundle", *arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "PATH"),
        (("=bundle",), "NAME=PATH"),
        (("name,=bundle",), "NAME=PATH"),
        (("a", "b", "--served-model-name", "x"), "--served-model-name is for one bundle"),
        (("a=b", "--served-model-name", "x"), "--served-model-name is for one bundle"),
        (("bundle", "--port", "x"), "--port"),
        (("bundle", "--port", "65536"), "0..65535"),
        (("bundle", "--nope"), "--nope"),
        (("bundle", "--serve", "x"), "--serve"),
        (("bundle", "--log-level", "loud"), "debug"),
        (("bundle", "--api-key", ""), "api_key"),
        (("bundle", "--api-key", "good", " "), "api_key"),
        (("bundle", "--served-model-name", "[]"), "--served-model-name [] names none"),
        (("bundle", "--max-body-bytes", "0"), "max_body_bytes=0"),
        (("bundle", "--drain-seconds", "-1"), "drain_seconds=-1"),
        (("bundle", "--root-path", "x/"), "root_path='x/'"),
        (("bundle", "--num-threads", "0"), "num_threads=0"),
        (("bundle", "--max-request-seconds", "0"), "max_request_seconds=0"),
        (("bundle", "--ssl-keyfile", "key.pem"), "ssl_certfile"),
        (("bundle", "--ssl-certfile", "c.pem", "--ssl-cert-reqs", "2"), "ssl_ca_certs"),
        (("bundle", "--ssl-cert-reqs", "3"), "--ssl-cert-reqs"),
        (("bundle", "--ssl-certfile", "no/such.pem"), "no/such.pem: No such file"),
    ],
)
def test_wrong_options_are_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    assert words in fail(capsys, *arguments)


@pytest.mark.parametrize("config", [ServerConfig, RuntimeConfig])
def test_help_shows_every_field_of_the_configs(
    capsys: pytest.CaptureFixture[str], config: type[ServerConfig] | type[RuntimeConfig]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for option in dataclasses.fields(config):
        assert f"--{option.name.replace('_', '-')}" in text
    assert "examples:" in text


def run_without(*modules: str, arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run the command where modules are not installed."""
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({modules!r}));"
        "from embed_server.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )


SERVE_EXTRA = (
    "fastapi", "starlette", "uvicorn", "pydantic", "orjson", "jinja2", "prometheus_client"
)  # fmt: skip


def test_help_works_on_the_base_install() -> None:
    result = run_without(*SERVE_EXTRA, "onnxruntime", arguments=["--help"])
    assert (result.returncode, result.stderr) == (0, "")


def test_a_missing_extra_is_named_in_one_line() -> None:
    result = run_without(*SERVE_EXTRA, arguments=["bundle"])
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    assert 'pip install "embed-runtime[serve]"' in result.stderr


def test_a_port_in_use_is_told_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{port}.*in use"):
            bind(ServerConfig(port=port))


def test_a_socket_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    path = tmp_path / "no" / "such" / "folder"
    with pytest.raises(InputError, match=f"cannot listen on {path}: No such file"):
        listen(ServerConfig(uds=path)).__enter__()


@pytest.mark.parametrize("host", ["192.0.2.1", "x" * 64])
def test_a_host_that_is_not_ours_is_told(host: str) -> None:
    with pytest.raises(InputError, match="cannot listen on"):
        bind(ServerConfig(host=host, port=0))
