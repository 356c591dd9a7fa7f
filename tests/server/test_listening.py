"""How a server is reached: unix sockets, TLS, certificates of callers, a path behind a proxy."""

import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from embed_runtime import InputError
from embed_server.config import ServerConfig
from embed_server.listening import listen

BODY = {"input": "the model"}


@pytest.fixture
def bundle(dummy_bundle: Callable[..., Path]) -> Path:
    return dummy_bundle()


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """An authority; its certificate lies in `ca.pem`, the server's files in `server.pem`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    return authority


def test_a_unix_socket(start_server: Any, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))  # as a server leaves it that was killed
    server = start_server(bundle, "--uds", str(path), "--access-log")
    assert server.ready_line.endswith(f" on http+unix://{path}")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        response = client.post("http://localhost/v1/embeddings", json=BODY)
    assert (response.status_code, len(response.json()["data"][0]["embedding"])) == (200, 32)
    with pytest.raises(InputError, match=r"in use.*choose another --uds"):
        listen(ServerConfig(uds=path)).__enter__()
    assert server.stop() == 0
    assert not path.exists()
    assert "from unix: POST /v1/embeddings -> 200" in server.log.read_text()


def test_a_server_that_ends_leaves_its_successors_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with ExitStack() as ending, ExitStack() as serving:
        old = ending.enter_context(listen(ServerConfig(uds=path)))
        old.close()  # as uvicorn does before it finishes what was accepted
        new = serving.enter_context(listen(ServerConfig(uds=path)))
        new.listen()
        ending.close()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


def test_a_file_is_not_taken_for_a_dead_socket(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(InputError, match="in use"):
        listen(ServerConfig(uds=path)).__enter__()
    assert path.read_text() == "precious"


@pytest.mark.usefixtures("authority")
def test_tls_below_a_path(start_server: Any, bundle: Path, tmp_path: Path) -> None:
    server = start_server(
        *(bundle, "--root-path", "/embed", "--ssl-certfile", str(tmp_path / "certificate.pem")),
        *("--ssl-keyfile", str(tmp_path / "key.pem")),
    )
    assert server.ready_line.rpartition(" on ")[2].startswith("https://127.0.0.1:")
    assert server.ready_line.endswith("/embed")
    port = int(server.ready_line.removesuffix("/embed").rpartition(":")[2])
    context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=context) as client:
        assert client.post("/v1/embeddings", json=BODY).status_code == 200
        document = client.get("/openapi.json").json()
        assert document["servers"] == [{"url": "/embed"}]
        assert "/embed/openapi.json" in client.get("/docs").text
    with (
        httpx.Client(base_url=f"https://127.0.0.1:{port}") as stranger,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        stranger.get("/health")
    assert server.stop() == 0


def test_callers_may_have_to_show_a_certificate(
    start_server: Any, bundle: Path, authority: trustme.CA, tmp_path: Path
) -> None:
    server = start_server(
        *(bundle, "--ssl-certfile", str(tmp_path / "server.pem")),
        *("--ssl-ca-certs", str(tmp_path / "ca.pem"), "--ssl-cert-reqs", "2"),
    )
    context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    url = server.url.replace("http:", "https:")
    with httpx.Client(verify=context) as stranger, pytest.raises(httpx.TransportError):
        stranger.get(f"{url}/health")
    issued = authority.issue_cert("caller@example.org")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "caller.pem")
    context.load_cert_chain(tmp_path / "caller.pem")
    with httpx.Client(verify=context) as caller:
        assert caller.get(f"{url}/health").status_code == 200
    assert server.stop() == 0


@pytest.mark.usefixtures("authority")
def test_a_key_of_another_certificate_is_one_line(bundle: Path, tmp_path: Path) -> None:
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(tmp_path / "other.pem")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "other.pem"
    command = [sys.executable, "-m", "embed_server.cli", str(bundle), "--port", "0"]
    result = subprocess.run(
        [*command, "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith(f"error: cannot speak TLS with {certificate}, {key}: ")
