"""The CUDA device, on a fake driver library."""

import ctypes
from typing import Any

import numpy as np
import pytest

from embed_runtime.engines import _cuda
from embed_runtime.engines._cuda import CudaError, Device

NO_DEVICE, OUT_OF_MEMORY, LAUNCH_FAILED = 100, 2, 719


def test_without_a_driver_the_problem_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    assert _cuda.find_problem() == "no NVIDIA driver is installed (libcuda.so.1 not found)"
    with pytest.raises(CudaError, match="no NVIDIA driver"):
        Device()


def test_without_a_device_the_problem_is_the_drivers(driver: Any) -> None:
    driver.statuses["cuInit"] = NO_DEVICE
    assert _cuda.find_problem(lambda: driver) == (
        "cuInit failed: no CUDA-capable device is detected (CUDA error 100)"
    )


def test_without_a_visible_device_the_problem_names_the_variable(driver: Any) -> None:
    driver.num_devices = 0
    assert "CUDA_VISIBLE_DEVICES" in _cuda.find_problem(lambda: driver)


def test_probing_takes_nothing_on_the_device(driver: Any) -> None:
    assert _cuda.find_problem(lambda: driver) == ""
    assert _cuda.compute_capability(lambda: driver) == "8.9"
    assert not any("Ctx" in name or "Mem" in name for name in driver.calls)


def test_a_device_names_itself(device: Device) -> None:
    assert (device.name, device.compute_capability) == ("Fake GPU", "8.9")


def test_an_array_goes_up_and_comes_down(device: Device) -> None:
    buffer = device.allocate_buffer(1000)
    array = np.arange(60, dtype=np.int64).reshape(6, 10)[:, ::2]  # 240 bytes, not contiguous
    device.upload(buffer, array)
    buffer.host[:] = 0
    device.download(buffer, 240)
    device.synchronize()
    assert buffer.address % 256 == 0
    np.testing.assert_array_equal(buffer.host[:240].view(np.int64).reshape(6, 5), array)
    assert not buffer.host[240:].any()


def test_the_source_of_an_upload_may_change_at_once(device: Device) -> None:
    buffer = device.allocate_buffer(8)
    array = np.array([1], np.int64)
    device.upload(buffer, array)
    array[0] = 2
    device.download(buffer, 8)
    device.synchronize()
    assert buffer.host.view(np.int64).tolist() == [1]


def test_a_failed_call_is_an_error_with_its_name_and_words(driver: Any, device: Device) -> None:
    driver.statuses["cuMemAlloc_v2"] = OUT_OF_MEMORY
    with pytest.raises(CudaError, match=r"^cuMemAlloc_v2 failed: out of memory \(CUDA error 2\)$"):
        device.allocate(1 << 40)


def test_close_frees_everything_once(driver: Any) -> None:
    device = Device(load=lambda: driver)
    device.allocate_buffer(10)
    device.allocate(0)
    device.close()
    assert not driver.memory
    assert driver.calls.count("cuStreamDestroy_v2") == 1
    assert driver.calls[-1] == "cuDevicePrimaryCtxRelease_v2"
    num_calls = len(driver.calls)
    device.close()
    assert len(driver.calls) == num_calls


def test_close_does_not_raise_on_a_dead_device(driver: Any) -> None:
    device = Device(load=lambda: driver)
    device.allocate(10)
    for name in ("cuCtxSetCurrent", "cuStreamSynchronize", "cuMemFree_v2"):
        driver.statuses[name] = LAUNCH_FAILED
    device.close()


def test_a_device_that_cannot_be_opened_gives_its_context_back(driver: Any) -> None:
    driver.statuses["cuStreamCreate"] = OUT_OF_MEMORY
    with pytest.raises(CudaError, match="cuStreamCreate"):
        Device(load=lambda: driver)
    assert driver.calls[-1] == "cuDevicePrimaryCtxRelease_v2"
