"""Kernels for sign-gradient-descent spiking neurons and their packed spike trains."""

from importlib.metadata import version as _version

from . import schedules
from .activations import ACTIVATIONS, Activation
from .backends import Backend, backends
from .calibration import calibrate_offsets
from .modules import SignGDNeuron
from .ops.packing import pack, unpack
from .ops.signgd import NeuronState, signgd, signgd_binary
from .ops.spike_gemm import spike_conv1d, spike_conv2d, spike_conv2d_signgd, spike_linear, spike_linear_signgd
from .spike_train import SpikeTrain

__version__ = _version("snn-kernels")

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Backend",
    "NeuronState",
    "SignGDNeuron",
    "SpikeTrain",
    "__version__",
    "backends",
    "calibrate_offsets",
    "pack",
    "schedules",
    "signgd",
    "signgd_binary",
    "spike_conv1d",
    "spike_conv2d",
    "spike_conv2d_signgd",
    "spike_linear",
    "spike_linear_signgd",
    "unpack",
]
