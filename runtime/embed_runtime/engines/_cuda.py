"""One CUDA device through the driver API: a serving process needs the driver and nothing else.

Names, numbers and signatures are those of `cuda.h` (CUDA 12 and 13).
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

# What `ctypes.CDLL` gives: functions under their names.
Library: TypeAlias = Any

_LIBRARY = "libcuda.so.1"
_ORDINAL = 0  # Of the devices that CUDA_VISIBLE_DEVICES leaves.
_STREAM_NON_BLOCKING = 1
_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76
_MAX_NAME_BYTES = 256

_INT = ctypes.c_int
_UINT = ctypes.c_uint
_SIZE = ctypes.c_size_t
_ADDRESS = ctypes.c_uint64
_HANDLE = ctypes.c_void_p
_RESULT = ctypes.c_void_p  # Where a call writes to.

_SIGNATURES: dict[str, tuple[type[Any], ...]] = {
    "cuInit": (_UINT,),
    "cuGetErrorString": (_INT, _RESULT),
    "cuDeviceGetCount": (_RESULT,),
    "cuDeviceGet": (_RESULT, _INT),
    "cuDeviceGetName": (_RESULT, _INT, _INT),
    "cuDeviceGetAttribute": (_RESULT, _INT, _INT),
    "cuDevicePrimaryCtxRetain": (_RESULT, _INT),
    "cuDevicePrimaryCtxRelease_v2": (_INT,),
    "cuCtxSetCurrent": (_HANDLE,),
    "cuStreamCreate": (_RESULT, _UINT),
    "cuStreamSynchronize": (_HANDLE,),
    "cuStreamDestroy_v2": (_HANDLE,),
    "cuMemAlloc_v2": (_RESULT, _SIZE),
    "cuMemFree_v2": (_ADDRESS,),
    "cuMemAllocHost_v2": (_RESULT, _SIZE),
    "cuMemFreeHost": (_HANDLE,),
    "cuMemcpyHtoDAsync_v2": (_ADDRESS, _HANDLE, _SIZE, _HANDLE),
    "cuMemcpyDtoHAsync_v2": (_HANDLE, _ADDRESS, _SIZE, _HANDLE),
}


class CudaError(Exception):
    """There is no driver or no device, or a call failed; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """Memory on the device, and as much pinned memory on the host for the copies between them.

    Attributes:
        address: On the device, aligned to 256 bytes.
        host: [n] uint8.
    """

    address: int
    host: npt.NDArray[np.uint8]


def load_driver() -> Library:
    """Load the driver's library.

    Raises:
        CudaError: There is none.
    """
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise CudaError(f"no NVIDIA driver is installed ({_LIBRARY} not found)") from error


def find_problem(load: Callable[[], Library] = load_driver) -> str:
    """Say in one line why there is no CUDA device here, or nothing; takes no device memory."""
    try:
        _Driver(load())
    except CudaError as error:
        return str(error)
    return ""


def compute_capability(load: Callable[[], Library] = load_driver) -> str:
    """Return the device's compute capability, like "8.9"; takes no device memory.

    Raises:
        CudaError: There is no device.
    """
    return _Driver(load()).compute_capability()


class Device:
    """The first visible device, with one stream; what it allocates lives until it is closed.

    Attributes:
        name: What its maker calls it.
        compute_capability: Like "8.9".
        stream: Where copies and work are queued.
    """

    def __init__(self, load: Callable[[], Library] = load_driver) -> None:
        self._driver = _Driver(load())
        self.name = self._driver.name()
        self.compute_capability = self._driver.compute_capability()
        self._addresses: list[int] = []
        self._host_addresses: list[int] = []
        self.stream = 0
        # The context that TensorRT's own CUDA runtime uses too.
        self._context = self._driver.get(_HANDLE, "cuDevicePrimaryCtxRetain", self._driver.device)
        try:
            self.activate()
            self.stream = self._driver.get(_HANDLE, "cuStreamCreate", _STREAM_NON_BLOCKING)
        except CudaError:
            self.close()
            raise

    def activate(self) -> None:
        """Make the device the calling thread's; each thread does so before it uses the device."""
        self._driver.call("cuCtxSetCurrent", self._context)

    def allocate(self, num_bytes: int) -> int:
        """Allocate device memory and return its address, aligned to 256 bytes."""
        # The driver refuses to allocate nothing.
        address = self._driver.get(_ADDRESS, "cuMemAlloc_v2", max(1, num_bytes))
        self._addresses.append(address)
        return address

    def allocate_buffer(self, num_bytes: int) -> Buffer:
        """Allocate memory on both sides."""
        host = self._driver.get(_HANDLE, "cuMemAllocHost_v2", num_bytes)
        self._host_addresses.append(host)
        memory = (ctypes.c_uint8 * num_bytes).from_address(host)
        return Buffer(address=self.allocate(num_bytes), host=np.ctypeslib.as_array(memory))

    def upload(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Queue the copy of an array to a buffer; the array may change as soon as this returns."""
        buffer.host[: array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._driver.call(
            "cuMemcpyHtoDAsync_v2",
            buffer.address,
            buffer.host.ctypes.data,
            array.nbytes,
            self.stream,
        )

    def download(self, buffer: Buffer, num_bytes: int) -> None:
        """Queue the copy of a buffer's first bytes from the device to its host side."""
        self._driver.call(
            "cuMemcpyDtoHAsync_v2",
            buffer.host.ctypes.data,
            buffer.address,
            num_bytes,
            self.stream,
        )

    def synchronize(self) -> None:
        """Wait for all that was queued."""
        self._driver.call("cuStreamSynchronize", self.stream)

    def close(self) -> None:
        """Free everything; safe to call twice."""
        if not self._context:
            return
        # After an error on the device all of these fail too; then the process's end frees it.
        attempt = self._driver.attempt
        attempt("cuCtxSetCurrent", self._context)
        if self.stream:
            attempt("cuStreamSynchronize", self.stream)
            attempt("cuStreamDestroy_v2", self.stream)
        for address in self._addresses:
            attempt("cuMemFree_v2", address)
        for address in self._host_addresses:
            attempt("cuMemFreeHost", address)
        attempt("cuDevicePrimaryCtxRelease_v2", self._driver.device)
        self._context = 0


class _Driver:
    """The started driver: its functions with their types, their errors raised.

    Raises:
        CudaError: There is no device.
    """

    def __init__(self, library: Library) -> None:
        self._functions: dict[str, Callable[..., int]] = {}
        for name, types in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes = types
            function.restype = _INT
            self._functions[name] = function
        self.call("cuInit", 0)
        if self.get(_INT, "cuDeviceGetCount") == 0:
            raise CudaError("no NVIDIA GPU is visible; see CUDA_VISIBLE_DEVICES")
        self.device = self.get(_INT, "cuDeviceGet", _ORDINAL)

    def name(self) -> str:
        text = ctypes.create_string_buffer(_MAX_NAME_BYTES)
        self.call("cuDeviceGetName", text, _MAX_NAME_BYTES, self.device)
        return text.value.decode(errors="replace")

    def compute_capability(self) -> str:
        major, minor = (
            self.get(_INT, "cuDeviceGetAttribute", attribute, self.device)
            for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR)
        )
        return f"{major}.{minor}"

    def call(self, name: str, *arguments: object) -> None:
        """Call a function and raise its error."""
        status = self.attempt(name, *arguments)
        if status != 0:
            text = ctypes.c_char_p()
            self.attempt("cuGetErrorString", status, ctypes.byref(text))
            words = (text.value or b"unknown error").decode(errors="replace")
            raise CudaError(f"{name} failed: {words} (CUDA error {status})")

    def attempt(self, name: str, *arguments: object) -> int:
        """Call a function and return its status, 0 if it succeeded."""
        return self._functions[name](*arguments)

    def get(self, kind: type[Any], name: str, *arguments: object) -> int:
        """Call a function that writes a number of this type to its first argument."""
        result = kind()
        self.call(name, ctypes.byref(result), *arguments)
        return int(result.value or 0)
