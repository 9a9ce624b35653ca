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

    def __init__(self, scales, eta, substitutes=None, normalisation="decomposed"):
        super().__init__()
        self.decomposed = normalisation == "decomposed"
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
        if func in NORMALISING:
            return NORMALISING[func](self.chase, self.decomposed, *args, **kwargs)
        unary = func in NONLINEAR
        binary = func in BINARY
        # A factor of activations has a dimension for the samples, and as a matrix two more.
        ndim = 3 if func in PRODUCTS else 2
        if unary or (binary and all(isinstance(arg, torch.Tensor) and arg.ndim >= ndim for arg in args[:2])):
            return self.chase(func(*args, **kwargs))
        return func(*args, **kwargs)


def by_root_mean_square(chase, u, dims, eps):
    """``u / sqrt(mean(u**2) + eps)`` of squares and quotients that are chased."""
    squares = chase(u * u)
    return chase(u / torch.sqrt(squares.mean(dims, keepdim=True) + eps))


def layer_norm(chase, decomposed, x, shape, weight=None, bias=None, eps=1e-5):
    if not decomposed:
        return chase(F.layer_norm(x, shape, weight, bias, eps))
    dims = tuple(range(-len(shape), 0))
    y = by_root_mean_square(chase, x - x.mean(dims, keepdim=True), dims, eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def group_norm(chase, decomposed, x, groups, weight=None, bias=None, eps=1e-5):
    if not decomposed:
        return chase(F.group_norm(x, groups, weight, bias, eps))
    split = x.unflatten(1, (groups, -1))
    dims = tuple(range(2, split.ndim))
    y = by_root_mean_square(chase, split - split.mean(dims, keepdim=True), dims, eps).flatten(1, 2)
    return y * weight[:, None, None] + bias[:, None, None]


def rms_norm(chase, decomposed, x, shape, weight=None, eps=None):
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    if not decomposed:
        return chase(F.rms_norm(x, shape, weight, eps))
    return by_root_mean_square(chase, x, tuple(range(-len(shape), 0)), eps) * weight


def softmax(chase, decomposed, x, dim=-1, keep=None, **_):
    keep = torch.ones(()) if keep is None else keep
    if not decomposed:
        e = torch.exp(x) * keep
        return chase(e / e.sum(dim, keepdim=True)) * keep
    e = chase(torch.exp(x)) * keep
    return chase(e / e.sum(dim, keepdim=True)) * keep


def attention(chase, decomposed, q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
    scores = chase((q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1))
    keep = torch.ones(scores.shape[-2:]).tril() if is_causal else None
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        keep = attn_mask.float()
    elif attn_mask is not None:
        scores = scores + attn_mask
    return chase(softmax(chase, decomposed, scores, -1, keep) @ v)


NORMALISING = {
    F.layer_norm: layer_norm, F.group_norm: group_norm, F.rms_norm: rms_norm, F.softmax: softmax,
    torch.softmax: softmax, torch.Tensor.softmax: softmax, F.scaled_dot_product_attention: attention,
}  # fmt: skip
PRODUCTS = {torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm}
BINARY = {
    torch.Tensor.mul, torch.Tensor.div, torch.mul, torch.div, torch.maximum, torch.minimum, *PRODUCTS
}  # fmt: skip


def gelu_sigmoid(x, approximate="none"):
    return x * torch.sigmoid(1.702 * x)


NONLINEAR = {
    F.relu, torch.relu, F.gelu, F.silu, F.leaky_relu, F.hardtanh, F.relu6, F.elu, F.celu, F.selu, F.mish, F.softplus,
    F.hardswish, F.hardsigmoid, torch.sigmoid, torch.tanh, torch.exp, torch.log, torch.sqrt, torch.rsqrt, torch.abs,
    torch.square, torch.reciprocal, torch.clamp, torch.pow, torch.Tensor.pow, torch.Tensor.relu, torch.Tensor.sigmoid,
    torch.Tensor.tanh, gelu_sigmoid,
}  # fmt: skip


def oracle_outputs(model, x, snn, steps, substitutes=None, normalisation="decomposed"):
    """The outputs that ``snn`` has to show after each of ``steps``, from ``model`` itself."""
    mode = ChaseMode([(p.scale, p.v0) for _, p in snn.populations()], snn.eta, substitutes, normalisation)
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
