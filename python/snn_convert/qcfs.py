"""The quantised activation that networks are trained with for lossless conversion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["QCFS", "qcfs_op"]


class QCFS(nn.Module):
    """Quantisation-clip-floor-shift (Bu et al., ICLR 2022), to train with in place of a ReLU::

        h(x) = threshold * clip(floor(x * levels / threshold + 1/2) / levels, 0, 1)

    The threshold is learned; the gradient passes through the floor as if it were not there. A network with it converts
    without loss by ``recipe="parallel"`` with ``timesteps=levels``.

    Args:
        levels: ``L``, the number of steps above 0.
        threshold: the initial threshold, positive.

    Shape:
        Any, and the same.

    Raises:
        ValueError: ``levels`` or ``threshold`` is not positive.
    """

    def __init__(self, levels: int = 8, threshold: float = 8.0):
        super().__init__()
        if not isinstance(levels, int) or levels < 1:
            raise ValueError(f"levels: expected an integer >= 1, got {levels!r}")
        if not threshold > 0:
            raise ValueError(f"threshold: expected a positive number, got {threshold!r}")
        self.levels = levels
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))

    def forward(self, x: Tensor) -> Tensor:
        return qcfs_op(x, self.threshold, self.levels)

    def extra_repr(self) -> str:
        return f"levels={self.levels}, threshold={self.threshold.item():.4g}"


torch.library.define("snn_convert::qcfs", "(Tensor x, Tensor threshold, int levels) -> Tensor")


@torch.library.impl("snn_convert::qcfs", "CompositeExplicitAutograd")
def _qcfs(x: Tensor, threshold: Tensor, levels: int) -> Tensor:
    # In the order in which parallel_spikes counts, so that both round alike.
    count = ((x * levels + 0.5 * threshold) / threshold).floor().clamp(0, levels)
    return threshold * (count / levels)


torch.library.register_fake("snn_convert::qcfs", lambda x, threshold, levels: torch.empty_like(x))


def _save(ctx, inputs, output) -> None:
    x, threshold, ctx.levels = inputs
    ctx.save_for_backward(x, threshold, output)


def _gradient(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
    """The floor's gradient is 1, the clip's is 1 from 0 to 1."""
    x, threshold, output = ctx.saved_tensors
    count = ((x * ctx.levels + 0.5 * threshold) / threshold).floor()
    inside = (count >= 0) & (count <= ctx.levels)
    by_threshold = torch.where(inside, (output - x) / threshold, (count > 0).to(x.dtype))
    return gradient * inside, (gradient * by_threshold).sum(), None


torch.library.register_autograd("snn_convert::qcfs", _gradient, setup_context=_save)

qcfs_op = torch.ops.snn_convert.qcfs.default
