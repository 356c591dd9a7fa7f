"""How a runtime uses its machine: limits and threads, each with its help text."""

from dataclasses import dataclass, field

from embed_runtime.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConfig:
    """Limits of one runtime; flags are derived from these fields.

    A field's `aliases` are what other servers call the same.
    """

    num_threads: int | None = field(
        default=None,
        metadata={"help": "threads for one engine call (default: one per physical core)"},
    )
    num_streams: int | None = field(
        default=None,
        metadata={
            "help": "batches computed at once, each with an equal share of the threads, so a number"
            " that divides them (default: 2 for small models on OpenVINO, else 1; other engines"
            " compute one)"
        },
    )
    max_model_len: int | None = field(
        default=None,
        metadata={"help": "longest text, in tokens (default: the longest the model takes)"},
    )
    max_batch_tokens: int | None = field(
        default=None,
        metadata={
            "help": "tokens in one batch (default: what keeps this engine busy)",
            "aliases": ["max-num-batched-tokens"],
        },
    )
    max_queue_tokens: int | None = field(
        default=None,
        metadata={
            "help": "tokens that may wait before requests are refused (default: 256 batches)",
            "aliases": ["max-num-queued-tokens"],
        },
    )
    max_request_tokens: int | None = field(
        default=None,
        metadata={"help": "most tokens in one request; a larger one is refused (default: any)"},
    )
    max_cache_bytes: int = field(
        default=0,
        metadata={
            "help": "memory for results, to answer inputs that come again without the engine, like "
            "1000000000 for about 500,000 short texts and 384 dimensions; 0 keeps none"
        },
    )
    num_tokenizer_threads: int = field(
        default=2,
        metadata={
            "help": "threads that turn long texts into tokens beside the caller's",
            "aliases": ["renderer-num-workers"],
        },
    )

    def __post_init__(self) -> None:
        """Refuse limits nothing could run under."""
        for name in (
            "num_threads",
            "num_streams",
            "max_model_len",
            "max_batch_tokens",
            "max_queue_tokens",
            "max_request_tokens",
            "num_tokenizer_threads",
        ):
            value: int | None = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value} must be at least 1", param=name)
        if self.max_cache_bytes < 0:
            raise InputError(
                f"max_cache_bytes={self.max_cache_bytes} must be at least 0; 0 keeps no results",
                param="max_cache_bytes",
            )
