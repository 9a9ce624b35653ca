"""Turn a trained PyTorch network into a spiking one."""

from .convert import convert
from .errors import CalibrationError, UnsupportedOperation
from .model import SpikingModel

__all__ = ["CalibrationError", "SpikingModel", "UnsupportedOperation", "convert"]
