"""A GPU that is none: a driver library and a TensorRT, both fakes that work on host memory."""

# ruff: noqa: N802 - the names are the libraries' own.

import ctypes
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embed_runtime.engines._cuda import Device
from embed_runtime.engines._tensorrt_library import Edition
from embed_runtime.engines._tensorrt_profiles import Profile, plan_profiles

NO_DEVICE, OUT_OF_MEMORY, LAUNCH_FAILED = 100, 2, 719
CONTEXT, STREAM, DEVICE = 0x7F00_1234_5678, 0x7F00_AABB_CCDD, 3
HIDDEN_SIZE = 64


class FakeDriver:
    """A fake of libcuda.so.1: device memory is host memory, copies happen at once.

    Attributes:
        calls: Names of the functions called, in order.
        memory: Every live allocation, of both kinds, by address.
        statuses: What a function returns instead of 0, by name.
        capability: The device's compute capability.
        num_devices: How many there are.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.memory: dict[int, Any] = {}
        self.statuses: dict[str, int] = {}
        self.capability = (8, 9)
        self.num_devices = 1
        for name in dir(FakeDriver):
            if name.startswith("_cu"):
                setattr(self, name[1:], self._wrap(name[1:], getattr(self, name)))

    def _wrap(self, name: str, function: Callable[..., None]) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            status = self.statuses.get(name, 0)
            if status == 0:
                function(*arguments)
            return status

        return call

    def _cuInit(self, flags: int) -> None:
        assert flags == 0

    def _cuGetErrorString(self, status: int, text: Any) -> None:
        words = {
            NO_DEVICE: b"no CUDA-capable device is detected",
            OUT_OF_MEMORY: b"out of memory",
            LAUNCH_FAILED: b"unspecified launch failure",
        }
        text._obj.value = words[status]

    def _cuDeviceGetCount(self, count: Any) -> None:
        count._obj.value = self.num_devices

    def _cuDeviceGet(self, device: Any, ordinal: int) -> None:
        assert ordinal == 0
        device._obj.value = DEVICE

    def _cuDeviceGetName(self, name: Any, num_bytes: int, device: int) -> None:
        assert (len(name), device) == (num_bytes, DEVICE)
        name.value = b"Fake GPU"

    def _cuDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> None:
        assert device == DEVICE
        value._obj.value = self.capability[{75: 0, 76: 1}[attribute]]

    def _cuDevicePrimaryCtxRetain(self, context: Any, device: int) -> None:
        assert device == DEVICE
        context._obj.value = CONTEXT

    def _cuDevicePrimaryCtxRelease_v2(self, device: int) -> None:
        assert device == DEVICE

    def _cuCtxSetCurrent(self, context: int) -> None:
        assert context == CONTEXT

    def _cuStreamCreate(self, stream: Any, flags: int) -> None:
        assert flags == 1  # does not wait for the default stream
        stream._obj.value = STREAM

    def _cuStreamSynchronize(self, stream: int) -> None:
        assert stream == STREAM

    def _cuStreamDestroy_v2(self, stream: int) -> None:
        assert stream == STREAM

    def _allocate(self, address: Any, num_bytes: int) -> None:
        memory = (ctypes.c_uint8 * (num_bytes + 255))()
        aligned = ctypes.addressof(memory) + -ctypes.addressof(memory) % 256
        self.memory[aligned] = memory
        address._obj.value = aligned

    def _cuMemAlloc_v2(self, address: Any, num_bytes: int) -> None:
        self._allocate(address, num_bytes)

    def _cuMemAllocHost_v2(self, address: Any, num_bytes: int) -> None:
        self._allocate(address, num_bytes)

    def _cuMemFree_v2(self, address: int) -> None:
        del self.memory[address]

    def _cuMemFreeHost(self, address: int) -> None:
        del self.memory[address]

    def _cuMemcpyHtoDAsync_v2(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        assert stream == STREAM
        ctypes.memmove(target, source, num_bytes)

    def _cuMemcpyDtoHAsync_v2(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        assert stream == STREAM
        ctypes.memmove(target, source, num_bytes)


def read_memory(address: int, kind: type[np.generic], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """View memory at an address."""
    num_bytes = int(np.prod(shape)) * np.dtype(kind).itemsize
    memory = (ctypes.c_uint8 * num_bytes).from_address(address)
    return np.ctypeslib.as_array(memory).view(kind).reshape(shape)


class FakeContext:
    """A fake of IExecutionContext; it computes the model of `FakeTrt`.

    Attributes:
        profile: The optimization profile it was given.
        shapes: What `set_input_shape` was told last, by input.
        set_shapes: Every call of `set_input_shape`.
        addresses: What `set_tensor_address` was told, by tensor.
        arena: Address and size of its device memory.
    """

    def __init__(self, engine: "FakeEngine") -> None:
        self.engine = engine
        self.profile: int | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.set_shapes: list[tuple[str, tuple[int, ...]]] = []
        self.addresses: dict[str, int] = {}
        self.arena: tuple[int, int] | None = None
        self.num_runs = 0

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        assert stream == STREAM
        self.profile = index
        return True

    def set_device_memory(self, address: int, num_bytes: int) -> None:
        assert address % 256 == 0
        assert num_bytes >= self.engine.device_memory_size_v2
        self.arena = (address, num_bytes)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.profile is not None
        _, _, largest = self.engine.get_tensor_profile_shape(name, self.profile)
        self.set_shapes.append((name, shape))
        self.shapes[name] = shape
        return all(1 <= size <= limit for size, limit in zip(shape, largest, strict=True))

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == STREAM
        assert self.arena is not None
        self.num_runs += 1
        if self.engine.refusal:
            self.engine.logger.log(self.engine.trt.ILogger.ERROR, self.engine.refusal)
            return False
        ids, positions, unpad = (
            self._input(name, np.int64) for name in ("input_ids", "position_ids", "unpad_index")
        )
        pad, mask = self._input("pad_index", np.int64), self._input("attention_mask", np.float32)
        tokens = self.engine.trt.embed(ids, positions)
        rows = tokens[pad] * mask[..., None]
        pooled = rows.sum(axis=1) / mask.sum(axis=1)[:, None]
        # What a real graph does around attention: to rows and back.
        tokens = rows.reshape(-1, HIDDEN_SIZE)[unpad]
        for name, values in {
            "token_embeddings": tokens,
            "pooled": pooled,
            "embedding": pooled / np.linalg.norm(pooled, axis=1, keepdims=True),
        }.items():
            read_memory(self.addresses[name], np.float32, values.shape)[:] = values
        return True

    def _input(self, name: str, kind: type[np.generic]) -> npt.NDArray[Any]:
        return read_memory(self.addresses[name], kind, self.shapes[name])


@dataclass
class FakeEngine:
    """A fake of ICudaEngine, with the profiles that a build for 512 tokens gives."""

    trt: "FakeTrt"
    logger: Any
    profiles: list[Profile]
    refusal: str = ""
    contexts: list[FakeContext] = field(default_factory=list[FakeContext])
    device_memory_size_v2: int = 4096

    shapes = {  # noqa: RUF012 - a constant, not a field
        "input_ids": (-1,),
        "position_ids": (-1,),
        "pad_index": (-1, -1),
        "unpad_index": (-1,),
        "attention_mask": (-1, -1),
        "embedding": (-1, HIDDEN_SIZE),
        "pooled": (-1, HIDDEN_SIZE),
        "token_embeddings": (-1, HIDDEN_SIZE),
    }

    @property
    def num_io_tensors(self) -> int:
        return len(self.shapes)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        return list(self.shapes)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def get_tensor_mode(self, name: str) -> str:
        return "OUTPUT" if self.shapes[name][-1] == HIDDEN_SIZE else "INPUT"

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        profile, rank = self.profiles[index], len(self.shapes[name])
        return [shape.dimensions(rank) for shape in (profile.min, profile.opt, profile.max)]

    def create_execution_context(self, strategy: str) -> FakeContext | None:
        assert strategy == "USER_MANAGED"
        if self.trt.no_contexts:
            return None
        self.contexts.append(FakeContext(self))
        return self.contexts[-1]


class FakeTrt(ModuleType):
    """A fake of the `tensorrt` module: the calls that loading and running a plan make.

    The model: a token's vector depends on its id and its position; pooling is the mean.

    Attributes:
        engine: The engine of the plan, or None if it cannot be deserialized.
        validity: What `get_engine_validity` answers; None for an edition without it.
        no_contexts: Whether execution contexts cannot be created.
        num_deserialized: How many plans were deserialized.
    """

    __version__ = "11.9.0"
    TensorIOMode = SimpleNamespace(INPUT="INPUT")
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="USER_MANAGED")
    EngineValidity = SimpleNamespace(INVALID=2)
    EngineInvalidityDiagnostics = SimpleNamespace(
        __members__={"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4}
    )

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self) -> None:
        super().__init__("fake_tensorrt")
        self.engine: FakeEngine | None = None
        self.can_deserialize = True
        self.validity: tuple[int, int] | None = None
        self.no_contexts = False
        self.num_deserialized = 0

    def Runtime(self, logger: Any) -> Any:
        def deserialize(plan: bytes) -> FakeEngine | None:
            self.num_deserialized += 1
            if not self.can_deserialize:
                logger.log(self.ILogger.ERROR, "magic tag\ndoes not match")
                return None
            assert plan == b"a plan"
            self.engine = FakeEngine(self, logger, plan_profiles(512))
            return self.engine

        runtime = SimpleNamespace(deserialize_cuda_engine=deserialize)
        if self.validity is not None:
            runtime.engine_header_size = 4
            runtime.get_engine_validity = self._validity
        return runtime

    def _validity(self, header: bytes) -> tuple[int, int]:
        assert header == b"a pl"
        assert self.validity is not None
        return self.validity

    @staticmethod
    def embed(ids: npt.NDArray[Any], positions: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Compute token vectors, [T, 64]."""
        steps = np.arange(1, HIDDEN_SIZE + 1)
        angles = np.outer(ids + 1, steps) / 97 + np.outer(positions, steps[::-1]) / 89
        return np.sin(angles).astype(np.float32)


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def device(driver: FakeDriver) -> Iterator[Device]:
    opened = Device(load=lambda: driver)
    yield opened
    opened.close()


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> FakeTrt:
    fake = FakeTrt()
    monkeypatch.setitem(sys.modules, "fake_tensorrt", fake)
    return fake


@pytest.fixture
def edition(trt: FakeTrt) -> Edition:
    return Edition(
        name="tensorrt", modules=("fake_tensorrt",), extra="none", magic=b"a p", portable=False
    )
