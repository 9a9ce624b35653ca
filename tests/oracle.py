"""The value-domain oracle (design, section 1): the user's own model with every nonlinearity replaced by a unit that
chases its target. It knows no spikes, currents or offsets, and shares no code with the converter or the kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


class Unit:
    """``v <- v - eta * c * (2 * [v >= h] - 1)``; its output is ``v``."""

    def __init__(self, scale, v0):
        self.scale, self.v0, self.v = scale, v0, None

    def chase(self, target: torch.Tensor, eta: torch.Tensor) -> torch.Tensor:
        if self.v is None:
            self.v = self.v0.expand_as(target)
        above = (self.v >= target).to(target.dtype)
        self.v = self.v - eta * self.scale * (2 * above - 1)
        return self.v


def pool_by_pairs(chase, x, kernel, stride, padding):
    """Max pooling as levels of pairwise maxima over the window, scanned row by row."""

    # The window's own elements, by index; an index in the padding takes the nearest row or column of the window.
    def indices(n, k):
        out = (n + 2 * padding - k) // stride + 1
        index = torch.arange(out)[:, None] * stride - padding + torch.arange(k)[None]
        return index.clamp(0, n - 1)

    down, right = indices(x.shape[-2], kernel), indices(x.shape[-1], kernel)
    elements = [x[..., down[:, i], :][..., right[:, j]] for i in range(kernel) for j in range(kernel)]
    while len(elements) > 1:
        pairs = len(elements) // 2
        a = torch.stack(elements[0 : 2 * pairs : 2], 1)
        b = torch.stack(elements[1 : 2 * pairs : 2], 1)
        target = torch.maximum(a, b)
        winners = chase(target.squeeze(1) if pairs == 1 else target)
        elements = ([winners] if pairs == 1 else list(winners.unbind(1))) + elements[2 * pairs :]
    return elements[0]


class ChaseMode(TorchFunctionMode):
    """While active, every nonlinearity of a model is a :class:`Unit`, in the order of the calls."""

    def __init__(self, scales, eta, substitutes=None):
        super().__init__()
        self.units = [Unit(scale, v0) for scale, v0 in scales]
        self.eta, self.substitutes = eta, substitutes or {}

    def step(self, t):
        self.t, self.next_unit = t, 0

    def chase(self, target):
        unit = self.units[self.next_unit]
        self.next_unit += 1
        return unit.chase(target, self.eta[self.t])

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        kwargs.pop("inplace", None)
        func = self.substitutes.get(func, func)
        if func in (F.max_pool2d, torch.max_pool2d):
            values = dict(zip(("input", "kernel_size", "stride", "padding"), args)) | kwargs
            kernel = values["kernel_size"]
            return pool_by_pairs(self.chase, values["input"], kernel, values.get("stride") or kernel, values["padding"])
        unary = func in NONLINEAR
        binary = func in (torch.Tensor.mul, torch.Tensor.div, torch.mul, torch.div, torch.maximum, torch.minimum)
        if unary or (binary and all(isinstance(arg, torch.Tensor) and arg.ndim > 1 for arg in args[:2])):
            return self.chase(func(*args, **kwargs))
        return func(*args, **kwargs)


def gelu_sigmoid(x, approximate="none"):
    return x * torch.sigmoid(1.702 * x)


NONLINEAR = {
    F.relu, torch.relu, F.gelu, F.silu, F.leaky_relu, F.hardtanh, F.relu6, F.elu, F.celu, F.selu, F.mish, F.softplus,
    F.hardswish, F.hardsigmoid, torch.sigmoid, torch.tanh, torch.exp, torch.log, torch.sqrt, torch.rsqrt, torch.abs,
    torch.square, torch.reciprocal, torch.clamp, torch.pow, torch.Tensor.pow, torch.Tensor.relu, torch.Tensor.sigmoid,
    torch.Tensor.tanh, gelu_sigmoid,
}  # fmt: skip


def oracle_outputs(model, x, snn, steps, substitutes=None):
    """The outputs that ``snn`` has to show after each of ``steps``, from ``model`` itself."""
    mode = ChaseMode([(p.scale, p.v0) for _, p in snn.populations()], snn.eta, substitutes)
    f, outputs = torch.zeros_like(x), {}
    for t, eta in enumerate(snn.eta):
        if snn.encoder == "direct":
            given = x
        else:
            f = f - eta * (f - x) if snn.encoder == "float" else f - eta * (2 * (f >= x).to(x.dtype) - 1)
            given = f
        with torch.no_grad(), mode:
            mode.step(t)
            outputs[t + 1] = model(given)
        assert mode.next_unit == len(mode.units)
    return [outputs[step] for step in steps]
