"""Turn a trained PyTorch network into a spiking one."""

from .convert import convert
from .errors import CalibrationError, UnsupportedOperation
from .model import SpikingModel
from .run import Run

__all__ = ["CalibrationError", "Run", "SpikingModel", "UnsupportedOperation", "convert"]
