"""`/info`: what we tell of a model, and beside it what text-embeddings-inference tells."""

from collections.abc import Mapping
from importlib.metadata import version
from types import MappingProxyType

from embed_runtime.manifest import Manifest
from embed_runtime.types import Precision
from embed_server.config import ServerConfig
from embed_server.served_model import ServedModel

DTYPES: Mapping[Precision, str] = MappingProxyType(
    {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}
)


def describe(model: ServedModel, config: ServerConfig) -> dict[str, object]:
    """Tell all of a model; the two APIs have no field in common."""
    runtime, manifest = model.runtime, model.manifest
    # Neither requests nor inputs are counted here: as many as fit into the queue at full length.
    most_inputs = max(1, runtime.max_queue_tokens // manifest.max_tokens)
    return {
        "model_names": model.names,
        "engine": runtime.engine_entry,
        "skipped_engines": runtime.skipped_engines,
        "manifest": manifest,
        "certificate": model.certificate,
        "model_id": manifest.model.id,
        "model_sha": manifest.model.revision,
        "model_dtype": DTYPES[runtime.engine_entry.precision],
        "model_type": {"embedding": {"pooling": _pooling(manifest)}},
        "max_concurrent_requests": most_inputs,
        "max_input_length": manifest.max_tokens,
        "max_batch_tokens": runtime.max_batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": min(config.max_request_inputs, most_inputs),
        "auto_truncate": False,
        "tokenization_workers": runtime.config.num_tokenizer_threads,
        "version": version("embed-runtime"),
        "sha": None,
        "docker_label": None,
    }


def _pooling(manifest: Manifest) -> str:
    """Name the pooling in that API's words."""
    if manifest.sparse is not None and manifest.sparse.output == "embedding":
        return "splade"
    return "+".join(manifest.pooling.modes).replace("lasttoken", "last_token")
