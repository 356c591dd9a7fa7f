"""Builds a plan from a packed graph, and reads from the build log what was fused."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from embed_runtime.engines import BuildSpec, BuiltEngine, _cuda
from embed_runtime.engines._library import MissingLibraryError, one_line
from embed_runtime.engines._tensorrt_library import Edition, Log, Trt, portable_targets
from embed_runtime.engines._tensorrt_profiles import Profile, max_batch_tokens, plan_profiles
from embed_runtime.errors import BundleError

PLAN_NAME = "model.plan"

# How a verbose log lists the layers of an engine, and a fused attention kernel among them. The
# form is undocumented; seen in TensorRT-RTX 1.7.1.
_LAYERS = "Layers:"
_FUSED_ATTENTION = re.compile(r"^Name: _gemm_mha", re.MULTILINE)


def build(edition: Edition, spec: BuildSpec) -> BuiltEngine:
    """Build a plan and write it into the bundle.

    Raises:
        BundleError: The library is missing or refused the graph; the message gives its reason.
    """
    try:
        trt = edition.load()
        targets = (
            tuple(portable_targets(trt)) if edition.portable else (_cuda.compute_capability(),)
        )
    except (MissingLibraryError, _cuda.CudaError) as error:
        raise BundleError(f"{edition.name} cannot build here: {error}") from error
    log = Log(trt, verbose=True)
    builder = trt.Builder(log.logger)
    # The parser owns the weights until the network is built.
    network, parser = _parse(edition, trt, log, builder, spec.folder / spec.graph)
    profiles = plan_profiles(spec.max_tokens)
    config = configure(trt, builder, network, profiles)
    if edition.portable:
        _set_targets(trt, config)
    plan = builder.build_serialized_network(network, config)
    del parser
    if plan is None:
        raise BundleError(f"{edition.producer(trt)} refused {spec.graph}: {log.take_error()}")
    path = _plan_path(edition, spec.folder)
    path.write_bytes(plan)
    return BuiltEngine(
        file=path.name,
        files=(path.name,),
        producer=edition.producer(trt),
        device="cuda",
        targets=targets,
        max_batch_tokens=max_batch_tokens(spec.max_tokens),
        num_fused_attention=count_fused_attention(log.lines, len(profiles)),
    )


def count_fused_attention(lines: Iterable[str], num_profiles: int) -> int | None:
    """Count the attention layers that became one kernel; None if the log does not list layers.

    The list repeats all layers for each profile; where one profile fuses fewer, so says the count.
    """
    _, found, layers = "\n".join(lines).rpartition(_LAYERS)
    return len(_FUSED_ATTENTION.findall(layers)) // num_profiles if found else None


def _parse(edition: Edition, trt: Trt, log: Log, builder: Trt, path: Path) -> tuple[Trt, Trt]:
    """Read a graph; gives the network, and the parser that must outlive its building."""
    # Always so in TensorRT 11, where the flag is ignored; 10 has it and needs it.
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(path)):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        reason = one_line(reasons[0]) if reasons else log.take_error()
        raise BundleError(f"{edition.producer(trt)} cannot read {path.name}: {reason}")
    return network, parser


def configure(trt: Trt, builder: Trt, network: Trt, profiles: Sequence[Profile]) -> Trt:
    """Make the builder's config: exact float32, a log that lists layers, the profiles."""
    config = builder.create_builder_config()
    # Without it the log lists no layers.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # Where the graph says float32 it means it: TF32 keeps 10 bits of the mantissa.
    config.clear_flag(trt.BuilderFlag.TF32)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    for one in profiles:
        profile = builder.create_optimization_profile()
        for tensor in inputs:
            shapes = [shape.dimensions(len(tensor.shape)) for shape in (one.min, one.opt, one.max)]
            profile.set_shape(tensor.name, *shapes)
        config.add_optimization_profile(profile)
    return config


def _set_targets(trt: Trt, config: Trt) -> None:
    targets = portable_targets(trt).values()
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(target, index)


def _plan_path(edition: Edition, folder: Path) -> Path:
    """Name the plan; a bundle can hold one of each edition."""
    path = folder / PLAN_NAME
    return folder / f"model-{edition.name}.plan" if path.exists() else path
