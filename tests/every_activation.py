"""Prints a digest of the CPU kernel's outputs for every activation and type of current, as JSON.

Run in a process of its own, because the instruction set is chosen once (SNN_KERNELS_ISA lowers it).
"""

import hashlib
import json

import torch

from signgd_helpers import DTYPES, arguments_for, bits, run
from snn_kernels import _C, ACTIVATIONS

SPECIAL = torch.tensor([0.0, -0.0, 1e-45, 1e-38, -1e-6, 20.0, -20.0, 88.8, -104.0, 3e38, float("inf"), float("-inf")])


def digest(name: str, dtype: torch.dtype) -> str:
    arguments = arguments_for(ACTIVATIONS[name], (1203,), 11, dtype)
    arguments["bias"] = [torch.cat([SPECIAL, 10 * bias[len(SPECIAL) :]]) for bias in arguments["bias"]]
    result = run(name, backend="cpu", **arguments)
    outputs = (result.bytes, bits(result.v), *(bits(x) for x in result.x))
    return hashlib.sha256(b"".join(output.numpy().tobytes() for output in outputs)).hexdigest()


if __name__ == "__main__":
    digests = {f"{name} {dtype}": digest(name, dtype) for name in ACTIVATIONS for dtype in DTYPES}
    print(json.dumps({"isa": _C.isa, "digests": digests}))
