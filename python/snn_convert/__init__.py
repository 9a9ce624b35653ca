"""Turn a trained PyTorch network into a spiking one."""

from .convert import convert
from .errors import CalibrationError, ModelFileError, UnsupportedOperation
from .model import SpikingModel
from .qcfs import QCFS
from .run import Run

__all__ = ["QCFS", "CalibrationError", "ModelFileError", "Run", "SpikingModel", "UnsupportedOperation", "convert"]
