"""Kernels for sign-gradient-descent spiking neurons and their packed spike trains."""

from importlib.metadata import version as _version

import torch as _torch

from . import schedules
from .activations import ACTIVATIONS, Activation
from .backends import Backend, backends
from .calibration import calibrate_offsets
from .modules import SignGDNeuron
from .ops.decode import decode
from .ops.integrate_and_fire import integrate_and_fire, leaky_integrate_and_fire
from .ops.matmul import signgd_matmul
from .ops.neuron.state import NeuronState
from .ops.packing import pack, unpack
from .ops.parallel import parallel_spikes, parallel_spiking_neuron
from .ops.signgd import signgd, signgd_binary, signgd_target
from .ops.spike_gemm import spike_conv1d, spike_conv2d, spike_conv2d_signgd, spike_linear, spike_linear_signgd
from .ops.subgradient import subgradient
from .ops.vector import signgd_vector
from .quantized_weight import QuantizedWeight, quantize_weight
from .spike_train import SpikeTrain

# What calls return and take is saved beside a network's weights, which torch.load reads as its default is.
_torch.serialization.add_safe_globals([NeuronState, QuantizedWeight, SpikeTrain])

__version__ = _version("snn-kernels")

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Backend",
    "NeuronState",
    "QuantizedWeight",
    "SignGDNeuron",
    "SpikeTrain",
    "__version__",
    "backends",
    "calibrate_offsets",
    "decode",
    "integrate_and_fire",
    "leaky_integrate_and_fire",
    "pack",
    "parallel_spikes",
    "parallel_spiking_neuron",
    "quantize_weight",
    "schedules",
    "signgd",
    "signgd_binary",
    "signgd_matmul",
    "signgd_target",
    "signgd_vector",
    "spike_conv1d",
    "spike_conv2d",
    "spike_conv2d_signgd",
    "spike_linear",
    "spike_linear_signgd",
    "subgradient",
    "unpack",
]
