"""Whether a loaded graph is the one its manifest speaks of."""

from collections.abc import Iterable, Mapping

from embed_runtime.dialects import packed_input_names
from embed_runtime.engines import LoadSpec
from embed_runtime.errors import BundleError
from embed_runtime.types import OutputName


def check_signature(spec: LoadSpec, *, inputs: Iterable[str], widths: Mapping[str, int]) -> None:
    """Refuse an engine whose inputs we cannot make or whose vectors have another size.

    Args:
        spec: What was loaded.
        inputs: Names of the graph's inputs.
        widths: Last dimension of each of its outputs.

    Raises:
        BundleError: Graph and manifest disagree.
    """
    path, manifest = spec.folder / spec.entry.file, spec.manifest
    if spec.entry.dialect == "padded":
        raise BundleError(f"{path}: engines serve packed graphs, this one is padded; export again")
    known, found = packed_input_names(manifest), set(inputs)
    if unknown := sorted(found - known):
        raise BundleError(
            f"{path}: the graph has an input {unknown[0]!r}, known are {', '.join(sorted(known))};"
            " export the model again"
        )
    if manifest.adapters and "adapter_ids" not in found:
        raise BundleError(
            f"{path}: the manifest names adapters, and the graph has no input 'adapter_ids' to"
            " choose one; export the model again"
        )
    head = manifest.token_head
    expected: dict[OutputName, int] = {
        "embedding": manifest.dimensions.native,
        "pooled": manifest.dimensions.native,
        "token_embeddings": head.dimensions if head else manifest.hidden_size,
        "token_weights": 1,
    }
    for name in manifest.outputs:
        if name not in widths:
            raise BundleError(f"{path}: the graph has no output {name!r}; export the model again")
        if widths[name] != expected[name]:
            raise BundleError(
                f"{path}: {name} of the graph has {widths[name]} values, of the manifest"
                f" {expected[name]}; export the model again"
            )
