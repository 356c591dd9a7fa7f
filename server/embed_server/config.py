"""`ServerConfig`: every option of the HTTP side, written once; flags are derived from it."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from embed_runtime.errors import InputError

Compat: TypeAlias = Literal["vllm"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
ContentFormat: TypeAlias = Literal["auto", "string", "openai"]
LogFormat: TypeAlias = Literal["text", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """How to serve.

    Raises:
        InputError: A value is out of range.
    """

    host: str = field(
        default="127.0.0.1",
        metadata={"help": "address to listen on; 0.0.0.0 for every network", "metavar": "ADDRESS"},
    )
    port: int = field(default=8000, metadata={"help": "port to listen on; 0 takes a free one"})
    uds: Path | None = field(
        default=None,
        metadata={"help": "listen on this unix socket instead of a port", "metavar": "FILE"},
    )
    ssl_certfile: Path | None = field(
        default=None,
        metadata={"help": "speak TLS, with this certificate (PEM)", "metavar": "FILE"},
    )
    ssl_keyfile: Path | None = field(
        default=None,
        metadata={
            "help": "the certificate's private key (PEM), if it is in a file of its own",
            "metavar": "FILE",
        },
    )
    ssl_ca_certs: Path | None = field(
        default=None,
        metadata={
            "help": "authorities that may have signed the certificates of callers (PEM)",
            "metavar": "FILE",
        },
    )
    ssl_cert_reqs: Literal[0, 1, 2] = field(
        default=0,
        metadata={"help": "certificates of callers: 0 ignored, 1 checked if sent, 2 required"},
    )
    served_model_name: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "names that requests may call the only bundle by, the first one is reported "
            "back; by default its folder and its model's id, without and with the owner's name",
            "metavar": "NAME",
            "needs_value": True,
        },
    )
    api_key: tuple[str, ...] = field(
        default=(),
        repr=False,
        metadata={
            "help": "keys of which callers must send one as `Authorization: Bearer KEY`; "
            "by default the environment variable EMBED_API_KEY, which other users of the machine "
            "cannot see",
            "metavar": "KEY",
            "needs_value": True,
        },
    )
    allowed_origins: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "web pages whose scripts may call this server (CORS), like "
            "https://app.example, * for all; by default none",
            "metavar": "ORIGIN",
        },
    )
    allowed_methods: tuple[str, ...] = field(
        default=("*",),
        metadata={"help": "verbs that these scripts may use; by default all", "metavar": "VERB"},
    )
    allowed_headers: tuple[str, ...] = field(
        default=("*",),
        metadata={"help": "headers that these scripts may send; by default all", "metavar": "NAME"},
    )
    allow_credentials: bool = field(
        default=False, metadata={"help": "let these scripts send cookies and credentials"}
    )
    max_body_bytes: int = field(
        default=64 * 2**20,
        metadata={"help": "largest request body; a larger one is refused"},
    )
    max_request_inputs: int = field(
        default=16384,
        metadata={
            "help": "most inputs in one request; a larger one is refused",
            "aliases": ["max-client-batch-size"],
        },
    )
    max_tokenize_chars: int = field(
        default=2**20,
        metadata={
            "help": "most characters in one request to /tokenize, and most token ids in one to "
            "/detokenize or /decode; a larger one is refused"
        },
    )
    max_request_seconds: float | None = field(
        default=None,
        metadata={
            "help": "longest time from a request to the begin of its answer; its work is dropped "
            "then (default: any)"
        },
    )
    enable_chunked_processing: bool = field(
        default=False,
        metadata={
            "help": "read texts longer than the model in pieces and average their vectors, on "
            "/v1/embeddings, /v2/embed and /embed"
        },
    )
    max_embed_len: int | None = field(
        default=None,
        metadata={"help": "longest text that is read in pieces, in tokens (default: any)"},
    )
    drain_seconds: int = field(
        default=60,
        metadata={
            "help": "how long a stopping server works on what it accepted",
        },
    )
    root_path: str = field(
        default="",
        metadata={
            "help": "path under which a proxy shows this server, like /embed",
            "metavar": "PATH",
        },
    )
    chat_template: str | None = field(
        default=None,
        metadata={
            "help": "chat template for the only bundle, instead of its own: a file, or the "
            "template itself, which is known by a brace or a line break in it",
            "metavar": "FILE_OR_STRING",
        },
    )
    chat_template_content_format: ContentFormat = field(
        default="auto",
        metadata={
            "help": "how templates get a message's content: string, as one text; openai, as a list "
            "of parts; auto, as the template reads it"
        },
    )
    trust_request_chat_template: bool = field(
        default=False,
        metadata={
            "help": "run chat templates that come with requests; each is held to 2 s and 1 GiB, in "
            "a process of its own"
        },
    )
    compat: Compat | None = field(
        default=None,
        metadata={
            "help": "do as this server does where we do otherwise on purpose: no default prompts, "
            "503 when the queue is full"
        },
    )
    log_level: LogLevel = field(
        default="info", metadata={"help": "least level to log; debug logs every request"}
    )
    log_format: LogFormat = field(
        default="text", metadata={"help": "how to log; json is one object a line"}
    )
    access_log: bool = field(default=False, metadata={"help": "log every request at level info"})
    disable_access_log_for_endpoints: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "paths whose requests are not logged, like /health,/metrics",
            "metavar": "PATH",
        },
    )
    disable_fastapi_docs: bool = field(
        default=False, metadata={"help": "do not serve /docs and /openapi.json"}
    )

    @property
    def unlogged_paths(self) -> frozenset[str]:
        """The paths of `disable_access_log_for_endpoints`, which may be joined by commas."""
        texts = self.disable_access_log_for_endpoints
        return frozenset(path.strip() for text in texts for path in text.split(","))

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"port={self.port} is outside 0..65535", param="port")
        for name in (
            "max_body_bytes",
            "max_request_inputs",
            "max_tokenize_chars",
            "max_embed_len",
            "drain_seconds",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value} is not above 0", param=name)
        for name in ("served_model_name", "api_key", "allowed_origins"):
            if not all(text.strip() for text in getattr(self, name)):
                raise InputError(f"{name} must not be empty text", param=name)
        if self.root_path and (self.root_path[0] != "/" or self.root_path[-1] == "/"):
            raise InputError(
                f"root_path={self.root_path!r} must start with / and not end with it",
                param="root_path",
            )
        if self.max_request_seconds is not None and not 0 < self.max_request_seconds < math.inf:
            raise InputError(
                f"max_request_seconds={self.max_request_seconds} is not above 0",
                param="max_request_seconds",
            )
        if self.max_embed_len is not None and not self.enable_chunked_processing:
            raise InputError("max_embed_len needs enable_chunked_processing", param="max_embed_len")
        if self.ssl_certfile is None and (self.ssl_keyfile or self.ssl_ca_certs):
            raise InputError(
                "ssl_keyfile and ssl_ca_certs need ssl_certfile too", param="ssl_certfile"
            )
        if self.ssl_cert_reqs and self.ssl_ca_certs is None:
            raise InputError(
                f"ssl_cert_reqs={self.ssl_cert_reqs} needs ssl_ca_certs, to check them against",
                param="ssl_ca_certs",
            )
