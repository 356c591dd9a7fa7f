"""Fetching a checkpoint from the model hub, or finding it in the hub's cache."""

import re
from pathlib import Path

from embed_export.errors import ExportError

# Formats of the same weights that we do not read, and can be larger than the rest together.
_IGNORED = ("onnx/*", "openvino/*", "*/onnx/*", "*.onnx", "*.h5", "*.msgpack", "*.gguf")
_SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja", "README.md", "LICENSE*")
# Not all of *.safetensors: some repositories hold the same weights again as consolidated files.
_SAFETENSORS = ("model*.safetensors", "*/model*.safetensors", "*_linear.*", "*/pytorch_model.bin")
_PICKLES = ("pytorch_model*.bin",)


def download(model: str, *, revision: str | None) -> Path:
    """Fetch what an export reads: settings, tokenizer, weights (pickled only if need be), no code.

    Args:
        model: Hub id, like "sentence-transformers/all-MiniLM-L6-v2".
        revision: Branch, tag or commit; None for the main branch.

    Returns:
        The folder in the hub's cache; its name is the commit.

    Raises:
        ExportError: There is no such model, it may not be read, or the hub cannot be reached.
    """
    folder = _snapshot(model, revision, [*_SETTINGS, *_SAFETENSORS])
    if not any(folder.glob("model*.safetensors")):
        folder = _snapshot(model, revision, list(_PICKLES))
    return folder


def cached_model(folder: Path) -> tuple[str, str] | None:
    """Tell the hub id and the commit of a folder in the hub's cache; None for any other folder.

    Such a folder is `models--<owner>--<name>/snapshots/<commit>`.
    """
    folder = folder.resolve()
    kind, *name = folder.parent.parent.name.split("--")
    is_commit = re.fullmatch(r"[0-9a-f]{40}", folder.name) is not None
    if not is_commit or folder.parent.name != "snapshots" or kind != "models":
        return None
    if not name or not all(name):
        return None
    owner, *rest = name
    return "/".join([owner, "--".join(rest)] if rest else [owner]), folder.name


def _snapshot(model: str, revision: str | None, patterns: list[str]) -> Path:
    # tqdm's and a dict's type arguments are missing in the library's own signature.
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(
            snapshot_download(
                model, revision=revision, allow_patterns=patterns, ignore_patterns=list(_IGNORED)
            )
        )
    except GatedRepoError as error:
        raise ExportError(
            f"{model} is gated: accept its terms on its hub page and set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise ExportError(f"{model} has no revision {revision!r}; see its hub page") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ExportError(
            f"{model!r} is no folder here and no model on the hub (if it is private, set HF_TOKEN)"
        ) from error
    except Exception as error:  # sockets, TLS, proxies, disks: each layer raises its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ExportError(
            f"{model!r} is no folder here and could not be fetched from the hub: {reason}"
        ) from error
