"""Where the server listens: a port or a unix socket, with TLS or without."""

import os
import socket
import ssl
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from embed_runtime.errors import InputError
from embed_server.config import ServerConfig


@contextmanager
def listen(config: ServerConfig) -> Generator[socket.socket]:
    """Take the address for as long as the block runs, without accepting connections yet.

    Raises:
        InputError: It is taken, or it is not this machine's.
    """
    if config.uds is None:
        with bind(config) as listener:
            yield listener
        return
    with _bind_unix(config.uds) as listener, _removing(config.uds):
        yield listener


def bind(config: ServerConfig) -> socket.socket:
    """Take the port, without accepting connections yet.

    Raises:
        InputError: It is taken, or it is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"cannot listen on {config.host}:{config.port}: "
            f"{getattr(error, 'strerror', None) or error}; "
            "choose another --host or --port (0 takes a free port)"
        ) from error
    return listener


def _bind_unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and not _is_served(path):
            path.unlink()  # left behind by a server that was killed
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise InputError(
            f"cannot listen on {path}: {error.strerror or error}; choose another --uds", param="uds"
        ) from error
    return listener


@contextmanager
def _removing(path: Path) -> Generator[None]:
    """Remove a socket's file at the end, unless another server has put its own there since."""
    # Kept open, so that no other file gets this one's number.
    own = os.open(path, os.O_PATH)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(own), path.lstat()):
                path.unlink()
        os.close(own)


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


def check_tls(config: ServerConfig) -> None:
    """Read the files of TLS once at start.

    Raises:
        InputError: One of them is missing, or is not what it should be.
    """
    if config.ssl_certfile is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.ssl_certfile, config.ssl_keyfile)
        if config.ssl_ca_certs is not None:
            context.load_verify_locations(config.ssl_ca_certs)
    except (OSError, ssl.SSLError) as error:
        files = (config.ssl_certfile, config.ssl_keyfile, config.ssl_ca_certs)
        raise InputError(
            f"cannot speak TLS with {', '.join(str(file) for file in files if file)}: "
            f"{error.strerror or error}; --ssl-certfile and --ssl-keyfile take PEM files",
            param="ssl_certfile",
        ) from error


def address_of(listener: socket.socket, config: ServerConfig) -> str:
    """Write the address that callers use."""
    scheme = "http" if config.ssl_certfile is None else "https"
    if config.uds is not None:
        return f"{scheme}+unix://{config.uds}{config.root_path}"
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"{scheme}://{host}:{listener.getsockname()[1]}{config.root_path}"
