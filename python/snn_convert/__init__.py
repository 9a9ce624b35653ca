"""Turn a trained PyTorch network into a spiking one."""

from .convert import convert
from .errors import CalibrationError, UnsupportedOperation
from .model import SpikingModel
from .qcfs import QCFS
from .run import Run

__all__ = ["QCFS", "CalibrationError", "Run", "SpikingModel", "UnsupportedOperation", "convert"]
