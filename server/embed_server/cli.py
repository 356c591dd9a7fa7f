"""`embed-serve`: flags to configs, errors to exit codes; nothing heavy is imported for --help."""

import gc
import os
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from typing import Any

from embed_runtime.config import RuntimeConfig
from embed_runtime.errors import EmbedError, InputError
from embed_server.bundles import BundleSource
from embed_server.config import ServerConfig
from embed_server.options import OneLineParser, add_options, from_options, with_dashes

API_KEY_VARIABLE = "EMBED_API_KEY"

ALWAYS_ON = ("--enable-request-id-headers", "--enable-server-load-tracking")

EXAMPLES = """examples:
  embed-serve engines/all-MiniLM-L6-v2
  embed-serve engines/all-MiniLM-L6-v2 --host 0.0.0.0 --port 80 --engine onnxruntime
  EMBED_API_KEY=secret embed-serve engines/all-MiniLM-L6-v2 --served-model-name minilm
  embed-serve small=engines/all-MiniLM-L6-v2 large,default=engines/bge-large-en-v1.5

then:
  curl localhost:8000/v1/embeddings -H 'Content-Type: application/json' -d '{"input": "a text"}'
  http://localhost:8000/docs describes every endpoint

exit codes: 0 stopped, 1 unexpected, 2 something you can mend; one line on stderr says what
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    options = vars(_parser().parse_args(with_dashes(given)))
    # What is imported and loaded now stays; `serve` has it looked through once, at the end.
    gc.disable()
    try:
        config = from_options(ServerConfig, options | _api_key(options))
        runtime_config = from_options(RuntimeConfig, options)
        serve = _import_serve()
        serve(
            [BundleSource.parse(text) for text in options["bundles"]],
            engine=options["engine"],
            config=config,
            runtime_config=runtime_config,
        )
    except EmbedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        gc.enable()
    return 0


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="embed-serve",
        usage="embed-serve [NAME=]PATH ... [options]",
        description="Serve bundles over HTTP, with the embedding APIs of OpenAI, Cohere and "
        "text-embeddings-inference.",
        epilog=EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "bundles",
        nargs="+",
        metavar="PATH",
        help="a bundle that embed-export wrote, or one engine file in it; NAME=PATH or "
        "NAME,ALIAS=PATH says what requests call it, needed where several are called the same",
    )
    parser.add_argument(
        "--engine",
        metavar="NAME",
        help="which of a bundle's engines to run (default: the fastest that runs here)",
    )
    add_options(parser, "server", ServerConfig)
    add_options(parser, "runtime", RuntimeConfig)
    parser.add_argument(
        *ALWAYS_ON, action="store_true", help="options of vLLM that are always on here"
    )
    return parser


def _api_key(options: dict[str, Any]) -> dict[str, Any]:
    """Take the key from the environment when no flag gives one."""
    key = os.environ.get(API_KEY_VARIABLE)
    if key is None or "api_key" in options:
        return {}
    if not key.strip():
        raise InputError(f"{API_KEY_VARIABLE} is set but empty; unset it or give it a key")
    return {"api_key": (key,)}


def _import_serve() -> Callable[..., None]:
    """Import the server's libraries, which the base install does not have."""
    try:
        from embed_server.process import serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("embed_"):
            raise
        raise InputError(
            f'{error.name} is not installed; run: pip install "embed-runtime[serve]"'
        ) from error
    return serve


if __name__ == "__main__":
    sys.exit(main())
