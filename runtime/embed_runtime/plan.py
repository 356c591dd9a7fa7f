"""What a request asks of a bundle, checked against its manifest."""

from dataclasses import dataclass, replace
from typing import get_args

from embed_runtime.errors import InputError
from embed_runtime.manifest import Manifest, Sparse
from embed_runtime.types import NO_ADAPTER, EmbedRequest, OutputName, Task

_TASKS = " or ".join(map(repr, get_args(Task)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to answer a request.

    Attributes:
        prompt: Put in front of every text.
        adapter: Index of the adapter that goes with it, or `NO_ADAPTER`.
        output: What the engine computes.
        dimensions: Leading values to keep of it; None where that is all.
        center: Whether the mean of all values is taken from each before that.
        normalize: Whether the runtime scales to unit length, because the graph did not or
            because values were cut off.
        is_unit: Whether vectors have unit length in the end, whoever sees to it.
        num_dropped: First tokens of each input whose vectors are left out.
        sparse: What weights are made of the output; None for vectors.
        use_cache: Whether outputs may come from the result cache and stay there.
    """

    prompt: str = ""
    adapter: int = NO_ADAPTER
    output: OutputName
    dimensions: int | None = None
    center: bool = False
    normalize: bool = False
    is_unit: bool = False
    num_dropped: int = 0
    sparse: Sparse | None = None
    use_cache: bool = True


def make_plan(request: EmbedRequest, manifest: Manifest) -> Plan:
    """Plan a request.

    Raises:
        InputError: The bundle has no such prompt, size or task.
    """
    prompt, adapter = find_prompt(request, manifest)
    if request.task != "embed" and (request.chunk or request.late_chunking):
        raise InputError("only vectors of whole inputs can be made of chunks", param="task")
    if request.chunk and request.late_chunking:
        raise InputError("chunk and late_chunking cannot both be asked for", param="late_chunking")
    match request.task:
        case "embed" if request.late_chunking:
            plan = _plan_late(request, manifest)
        case "embed":
            plan = _plan_vectors(request, manifest)
        case "token_embed":
            plan = _plan_tokens(request, manifest)
        case "sparse":
            plan = _plan_weights(request, manifest)
        case _:
            raise InputError(f"task={request.task!r:.80} must be {_TASKS}", param="task")
    if not prompt and adapter == NO_ADAPTER and request.use_cache:
        return plan
    return replace(plan, prompt=prompt, adapter=adapter, use_cache=request.use_cache)


def _plan_vectors(request: EmbedRequest, manifest: Manifest) -> Plan:
    """Plan one vector for each input."""
    dimensions = _check_dimensions(request, manifest)
    wanted = manifest.normalize if request.normalize is None else request.normalize
    output: OutputName = "pooled" if manifest.normalize and not wanted else "embedding"
    if output not in manifest.outputs:
        raise InputError(
            f"this bundle does not give {output!r}, only {', '.join(manifest.outputs)};"
            " export the model again for more",
            param="normalize",
        )
    normalize = wanted and (dimensions is not None or not manifest.normalize)
    center = manifest.dimensions.center and dimensions is not None
    return Plan(
        output=output, dimensions=dimensions, center=center, normalize=normalize, is_unit=wanted
    )


def _plan_late(request: EmbedRequest, manifest: Manifest) -> Plan:
    """Plan one vector for each input, pooled here out of the vectors of its tokens."""
    is_mean = manifest.pooling.modes == ("mean",) and manifest.pooling.include_prompt
    if not is_mean or manifest.heads or manifest.token_head or "token_embed" not in manifest.tasks:
        raise InputError(
            "late chunking needs a model whose vector is the mean of its tokens' vectors, and a"
            " bundle that gives these",
            param="late_chunking",
        )
    dimensions = _check_dimensions(request, manifest)
    wanted = manifest.normalize if request.normalize is None else request.normalize
    center = manifest.dimensions.center and dimensions is not None
    return Plan(
        output="token_embeddings",
        dimensions=dimensions,
        center=center,
        normalize=wanted,
        is_unit=wanted,
    )


def _plan_tokens(request: EmbedRequest, manifest: Manifest) -> Plan:
    """Plan one vector for each token; none is normalized in the graph."""
    _check_task(request, manifest)
    if request.dimensions is not None:
        raise InputError("dimensions cannot be chosen for one vector a token", param="dimensions")
    head, normalize = manifest.token_head, request.normalize
    if normalize is None:
        # Sentence-Transformers does not normalize last hidden states either.
        normalize = head is not None and head.normalize
    num_dropped = 0 if head is None else head.num_dropped
    return Plan(output="token_embeddings", normalize=normalize, num_dropped=num_dropped)


def _plan_weights(request: EmbedRequest, manifest: Manifest) -> Plan:
    """Plan weights of the vocabulary's tokens."""
    _check_task(request, manifest)
    assert manifest.sparse is not None
    if request.dimensions is not None:
        raise InputError("dimensions cannot be chosen for sparse weights", param="dimensions")
    if request.normalize:
        raise InputError("sparse weights are never normalized", param="normalize")
    return Plan(output=manifest.sparse.output, sparse=manifest.sparse)


def _check_task(request: EmbedRequest, manifest: Manifest) -> None:
    """Refuse what the bundle was not exported for."""
    if request.task not in manifest.tasks:
        raise InputError(
            f"task={request.task!r} is not what this bundle does: {', '.join(manifest.tasks)};"
            " export another model, or this one again for more",
            param="task",
        )


def find_prompt(request: EmbedRequest, manifest: Manifest) -> tuple[str, int]:
    """Look up prompt and adapter by name, or take the prompt given, or the bundle's default.

    Raises:
        InputError: The bundle has no prompt of this name, or two are given.
    """
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
    if type(dimensions) is not int or not manifest.dimensions.allows(dimensions):
        raise InputError(
            f"dimensions={dimensions!r:.80} is not available: {manifest.dimensions.describe()}",
            param="dimensions",
        )
    return None if dimensions == manifest.dimensions.native else dimensions
