"""Loads a plan and runs it: one context per profile, one arena, one stream, buffers that stay."""

from collections.abc import Callable, Mapping

import numpy as np

from embed_runtime.dialects import packed_inputs
from embed_runtime.engines import LoadSpec
from embed_runtime.engines._cuda import Buffer, CudaError, Device
from embed_runtime.engines._library import MissingLibraryError
from embed_runtime.engines._signature import check_signature
from embed_runtime.engines._tensorrt_library import Edition, Log, Trt
from embed_runtime.engines._tensorrt_profiles import Shape, split
from embed_runtime.errors import BundleError, EngineError
from embed_runtime.types import TOKEN_OUTPUTS, Batch, FloatArray, OutputName

# Inputs are int64 or, the masks, half as wide; outputs are float32.
_INPUT_BYTES = 8
_OUTPUT_BYTES = 4


def load(
    edition: Edition, spec: LoadSpec, *, open_device: Callable[[], Device] = Device
) -> "TensorRtEngine":
    """Open a plan; nothing of it runs before library, version and GPU were found to fit.

    Raises:
        BundleError: It was built by another library or version or for another GPU, or there is no
            GPU.
    """
    path = spec.folder / spec.entry.file
    try:
        trt = edition.load()
        plan = path.read_bytes()
    except (MissingLibraryError, OSError) as error:
        raise BundleError(f"{path} cannot be loaded: {error}") from error
    _check_producer(edition, trt, spec, plan)
    try:
        device = open_device()
    except CudaError as error:
        raise BundleError(f"{path} needs an NVIDIA GPU: {error}") from error
    try:
        _check_target(spec, device)
        return _open(trt, spec, plan, device)
    except CudaError as error:
        device.close()
        raise BundleError(f"{path} cannot be loaded on this {device.name}: {error}") from error
    except BaseException:
        device.close()
        raise


class TensorRtEngine:
    """A deserialized plan, ready to run on one device.

    Attributes:
        limits: The largest shape of each optimization profile.
    """

    num_streams = 1
    run_express = None

    def __init__(self, trt: Trt, engine: Trt, spec: LoadSpec, log: Log, device: Device) -> None:
        self._manifest = spec.manifest
        self._log = log
        self._device = device
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        shapes = {name: tuple(engine.get_tensor_shape(name)) for name in names}
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self._ranks = {name: len(shapes[name]) for name in inputs}
        self._widths = {name: shapes[name][-1] for name in names if name not in inputs}
        check_signature(spec, inputs=inputs, widths=self._widths)
        profiles = range(engine.num_optimization_profiles)
        self.limits = [_limit(engine, index, self._ranks) for index in profiles]
        self._buffers = self._allocate_buffers()
        # Contexts take turns on one stream, so one arena serves them all.
        arena_bytes = int(engine.device_memory_size_v2)
        arena = device.allocate(arena_bytes)
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._contexts: list[_Context] = []
        for index in profiles:
            context = engine.create_execution_context(strategy)
            if context is None or not context.set_optimization_profile_async(index, device.stream):
                raise BundleError(f"{spec.entry.file}: no execution context: {log.take_error()}")
            context.set_device_memory(arena, arena_bytes)
            for name, buffer in self._buffers.items():
                context.set_tensor_address(name, buffer.address)
            self._contexts.append(_Context(context, log))
        # A context needs its engine for as long as it lives.
        self._engine = engine
        device.synchronize()

    def run(self, batch: Batch) -> dict[OutputName, FloatArray]:
        """Compute `batch.outputs`; see `Engine.run`."""
        if not self._contexts:
            raise EngineError("the engine is closed")
        try:
            self._device.activate()
            parts = [self._run(profile, part) for profile, part in split(batch, self.limits)]
        except CudaError as error:
            raise EngineError(f"the {self._device.name} failed: {error}") from error
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in batch.outputs}

    def close(self) -> None:
        """Free contexts, engine and memory, in this order."""
        self._contexts = []
        self._engine = None
        self._device.close()

    def _run(self, profile: int, batch: Batch) -> dict[OutputName, FloatArray]:
        inputs = packed_inputs(batch, self._manifest)
        for name in self._ranks:
            self._device.upload(self._buffers[name], inputs[name])
        self._contexts[profile].execute(Shape.of(batch), self._ranks, self._device.stream)
        for name in batch.outputs:
            num_bytes = self._num_rows(name, batch) * self._widths[name] * _OUTPUT_BYTES
            self._device.download(self._buffers[name], num_bytes)
        self._device.synchronize()
        return {name: self._read(name, batch) for name in batch.outputs}

    def _read(self, name: OutputName, batch: Batch) -> FloatArray:
        """Copy an output out of the buffer that the next call writes to."""
        rows: FloatArray = self._buffers[name].host.view(np.float32).reshape(-1, self._widths[name])
        return rows[: self._num_rows(name, batch)].copy()

    def _num_rows(self, name: OutputName, batch: Batch) -> int:
        return batch.num_tokens if name in TOKEN_OUTPUTS else batch.num_rows

    def _allocate_buffers(self) -> dict[str, Buffer]:
        """Allocate for the largest shapes, so that addresses never change."""
        num_tokens = max(limit.num_tokens for limit in self.limits)
        num_rows = max(limit.num_rows for limit in self.limits)
        num_slots = max(limit.num_slots for limit in self.limits)
        num_bytes = {
            name: (num_tokens if rank == 1 else num_slots) * _INPUT_BYTES
            for name, rank in self._ranks.items()
        }
        for name, width in self._widths.items():
            count = num_tokens if name in TOKEN_OUTPUTS else num_rows
            num_bytes[name] = count * width * _OUTPUT_BYTES
        return {name: self._device.allocate_buffer(size) for name, size in num_bytes.items()}


class _Context:
    """An execution context for one profile, and the shape it was last given."""

    def __init__(self, context: Trt, log: Log) -> None:
        self._context = context
        self._log = log
        self._shape: Shape | None = None

    def execute(self, shape: Shape, ranks: Mapping[str, int], stream: int) -> None:
        """Queue one run; a shape is set only when it changes, as that costs host time.

        Raises:
            EngineError: TensorRT refused.
        """
        accepted = True
        if shape != self._shape:
            self._shape = None
            accepted = all(
                self._context.set_input_shape(name, shape.dimensions(rank))
                for name, rank in ranks.items()
            )
        if not (accepted and self._context.execute_async_v3(stream)):
            raise EngineError(f"TensorRT refused a batch of {shape}: {self._log.take_error()}")
        self._shape = shape


def _check_producer(edition: Edition, trt: Trt, spec: LoadSpec, plan: bytes) -> None:
    """Refuse a plan of another library or version.

    Raises:
        BundleError: It is one.
    """
    path, producer = spec.folder / spec.entry.file, edition.producer(trt)
    if spec.entry.producer != producer:
        raise BundleError(
            f"{path} was built by {spec.entry.producer or 'an unknown library'}, here is"
            f" {producer}; run embed-export again here, or install the version that built it"
        )
    if not plan.startswith(edition.magic):
        raise BundleError(f"{path} is not a plan of {edition.name}; run embed-export again here")


def _check_target(spec: LoadSpec, device: Device) -> None:
    """Refuse a plan that was built for other GPUs.

    Raises:
        BundleError: It was.
    """
    targets = spec.entry.targets
    if device.compute_capability not in targets:
        raise BundleError(
            f"{spec.folder / spec.entry.file} was built for compute capability"
            f" {', '.join(targets) or 'unknown'}, this {device.name} has"
            f" {device.compute_capability}; run embed-export again here"
        )


def _open(trt: Trt, spec: LoadSpec, plan: bytes, device: Device) -> TensorRtEngine:
    """Deserialize a plan that was found to fit.

    Raises:
        BundleError: The library does not think so.
    """
    path = spec.folder / spec.entry.file
    device.activate()
    log = Log(trt)
    runtime = trt.Runtime(log.logger)
    if hasattr(runtime, "get_engine_validity"):
        validity, problems = runtime.get_engine_validity(plan[: runtime.engine_header_size])
        if validity == trt.EngineValidity.INVALID:
            members = trt.EngineInvalidityDiagnostics.__members__.items()
            words = [name.lower() for name, member in members if int(member) & problems]
            reason = ", ".join(words) or "the library gave no reason"
            raise BundleError(
                f"{path} is not valid on this {device.name}: {reason}; run embed-export again here"
            )
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BundleError(f"{path} cannot be deserialized: {log.take_error()}")
    return TensorRtEngine(trt, engine, spec, log, device)


def _limit(engine: Trt, index: int, ranks: Mapping[str, int]) -> Shape:
    """Read the largest shape an optimization profile takes."""
    largest = {
        rank: tuple(engine.get_tensor_profile_shape(name, index)[2]) for name, rank in ranks.items()
    }
    (num_tokens,), (num_rows, longest) = largest[1], largest[2]
    return Shape(num_tokens=num_tokens, num_rows=num_rows, longest=longest)
