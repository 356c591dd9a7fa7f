"""What a request asks of a bundle, checked against its manifest."""

from dataclasses import dataclass

from embed_runtime.errors import InputError
from embed_runtime.manifest import Manifest
from embed_runtime.types import NO_ADAPTER, EmbedRequest, OutputName


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to answer a request.

    Attributes:
        prompt: Put in front of every text.
        adapter: Index of the adapter that goes with it, or `NO_ADAPTER`.
        output: What the engine computes.
        dimensions: Leading values to keep of it; None where that is all.
        normalize: Whether the runtime scales to unit length, because the graph did not or
            because values were cut off.
    """

    prompt: str
    adapter: int
    output: OutputName
    dimensions: int | None
    normalize: bool


def make_plan(request: EmbedRequest, manifest: Manifest) -> Plan:
    """Plan a request.

    Raises:
        InputError: The bundle has no such prompt, size or task.
    """
    prompt, adapter = _find_prompt(request, manifest)
    dimensions = _check_dimensions(request, manifest)
    if request.task == "token_embed":
        # Token vectors are never normalized in the graph, nor by Sentence-Transformers.
        output, normalize = "token_embeddings", bool(request.normalize)
    elif request.task == "embed":
        wanted = manifest.normalize if request.normalize is None else request.normalize
        output = "pooled" if manifest.normalize and not wanted else "embedding"
        normalize = wanted and (dimensions is not None or not manifest.normalize)
    else:
        raise InputError(f"task={request.task!r} must be 'embed' or 'token_embed'", param="task")
    if output not in manifest.outputs:
        raise InputError(
            f"this bundle does not give {output!r}, only {', '.join(manifest.outputs)};"
            " export the model again for more",
            param="task" if request.task == "token_embed" else "normalize",
        )
    return Plan(
        prompt=prompt, adapter=adapter, output=output, dimensions=dimensions, normalize=normalize
    )


def _find_prompt(request: EmbedRequest, manifest: Manifest) -> tuple[str, int]:
    """Look up prompt and adapter by name, or take the prompt given, or the bundle's default."""
    if request.prompt is not None:
        if request.prompt_name is not None:
            raise InputError("prompt and prompt_name cannot both be given", param="prompt")
        return request.prompt, NO_ADAPTER
    name = manifest.default_prompt if request.prompt_name is None else request.prompt_name
    if name is None:
        return "", NO_ADAPTER
    prompt = manifest.prompts.get(name)
    if prompt is None:
        known = ", ".join(map(repr, sorted(manifest.prompts))) or "none"
        raise InputError(
            f"unknown prompt {name!r:.80}; this model has {known}", param="prompt_name"
        )
    return prompt, manifest.adapters.index(name) if name in manifest.adapters else NO_ADAPTER


def _check_dimensions(request: EmbedRequest, manifest: Manifest) -> int | None:
    """Refuse sizes the model was not made for; None stands for all of its values."""
    dimensions = request.dimensions
    if dimensions is None:
        return None
    if request.task == "token_embed":
        raise InputError("dimensions cannot be chosen for one vector a token", param="dimensions")
    if type(dimensions) is not int or not manifest.dimensions.allows(dimensions):
        raise InputError(
            f"dimensions={dimensions!r:.80} is not available: {manifest.dimensions.describe()}",
            param="dimensions",
        )
    return None if dimensions == manifest.dimensions.native else dimensions
