"""Kernels for sign-gradient-descent spiking neurons and their packed spike trains."""

from importlib.metadata import version as _version

from . import schedules
from .activations import ACTIVATIONS, Activation
from .backends import Backend, backends
from .ops.packing import pack, unpack
from .ops.signgd import NeuronState, signgd, signgd_binary
from .spike_train import SpikeTrain

__version__ = _version("snn-kernels")

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Backend",
    "NeuronState",
    "SpikeTrain",
    "__version__",
    "backends",
    "pack",
    "schedules",
    "signgd",
    "signgd_binary",
    "unpack",
]
