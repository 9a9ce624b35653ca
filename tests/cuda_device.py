"""A device "cuda" without a GPU, for a process of its own: ``pytest -p cuda_device``.

Tensors on it lie in the host's memory: tests/cuda_on_host/device.cpp, which ``python cuda_device.py FOLDER`` builds and
the environment variable CUDA_DEVICE names. More of the environment: DEFAULT_DEVICE, where tensors are made, and
CUDA_ON_HOST, the kernels, which otherwise are the reference.
"""

from __future__ import annotations

import contextlib
import os
import sys
from types import SimpleNamespace

import torch
from torch.utils import cpp_extension

import cuda_kernels
import snn_kernels  # noqa: F401  the package's module `backends` is changed below
from programs import BESIDE_PYTHON, TESTS


def build(folder: str) -> str:
    """The library that makes the device, compiled with the headers of this PyTorch."""
    os.environ["PATH"] = os.pathsep.join((str(BESIDE_PYTHON), os.environ["PATH"]))  # ninja
    source = TESTS / "cuda_on_host" / "device.cpp"
    return cpp_extension.load(
        "cuda_device", [str(source)], extra_cflags=["-O1"], build_directory=folder, is_python_module=False
    )


class Kernels:
    """CUDA's kernels on the host, called as on a stream."""

    cuda_architectures = "host"

    def cuda_refusal(self) -> str:
        return cuda_kernels.module().cuda_refusal()

    def __getattr__(self, op: str):
        return lambda device, arguments, stream: getattr(cuda_kernels.module(), op)("cpu", arguments, 1)


def pytest_configure() -> None:
    torch.ops.load_library(os.environ["CUDA_DEVICE"])
    clone = torch.UntypedStorage.clone

    def clone_here(storage: torch.UntypedStorage) -> torch.UntypedStorage:
        if storage.device.type != "cuda":
            return clone(storage)
        whole = torch.empty(0, dtype=torch.uint8, device="cuda").set_(storage, 0, (len(storage),), (1,))
        return whole.clone().untyped_storage()

    torch.UntypedStorage.clone = clone_here
    nothing = contextlib.nullcontext()
    for name, value in {
        "_lazy_init": None,
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "current_stream": SimpleNamespace(cuda_stream=0),
        "device": nothing,
        "synchronize": None,
        "get_rng_state": torch.get_rng_state(),  # of no use, and asked for by torch.export
        "set_rng_state": None,
        "mem_get_info": (0, 0),
    }.items():
        setattr(torch.cuda, name, lambda *_, value=value: value)
    backends = sys.modules["snn_kernels.backends"]
    if "CUDA_ON_HOST" in os.environ:
        backends.C = Kernels()
    else:
        backends.FASTEST_FIRST["cuda"] = ()
    torch.set_default_device(os.environ.get("DEFAULT_DEVICE"))


if __name__ == "__main__":
    print(build(sys.argv[1]))
