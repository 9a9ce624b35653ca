"""The value-domain oracle (design, section 1): the user's own model with every nonlinearity replaced by a unit that
chases its target. It knows no spikes, currents or offsets, and shares no code with the converter or the kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

CONSTANT, EXACT = -2, -1  # depends on no input; follows from integer inputs by arithmetic alone, as masks do


def depth_of(values) -> int:
    """The most units that lie one behind the other before any of these tensors; negative if none is an activation."""
    return max((getattr(value, "units_before", CONSTANT) for value in pytree.tree_leaves(values)), default=CONSTANT)


def is_activation(values) -> bool:
    return depth_of(values) >= 0


class MarkDepth(TorchFunctionMode):
    """What a function returns lies as deep as the deepest of its arguments. A learned map of integer inputs gives the
    activations that enter the model."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if name_of(func) not in SHAPE_ONLY:
            depth = depth_of(args[:1] if name_of(func) in OF_FIRST else (args, kwargs))
            depth = 0 if depth == EXACT and name_of(func) in LEARNED else depth
            for leaf in pytree.tree_leaves(out):
                if isinstance(leaf, torch.Tensor):
                    leaf.units_before = depth
        return out


SHAPE_ONLY = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}
OF_FIRST = {"to", "type_as", "expand_as", "view_as", "reshape_as"}  # and of the others' shape or type
LEARNED = {"embedding", "linear", "conv1d", "conv2d"}


def name_of(func) -> str:
    """The name that a function, a method and their forms in place share."""
    return getattr(func, "__name__", "").strip("_")


class Unit:
    """``v <- v - eta * c * (2 * [v >= h] - 1)``; its output is ``v``."""

    def __init__(self, scale, v0):
        self.scale, self.v0, self.v = scale, v0, None

    def chase(self, target, eta, keep=None):
        """``keep`` is 0 where a mask takes away whatever the unit gives."""
        self.v = self.v0.expand_as(target) if self.v is None else self.v
        self.v = self.v - eta * self.scale * (2 * self.fires(target, keep) - 1)
        return self.v.clone()  # models write into what they get

    def fires(self, target, keep):
        return (self.v >= target).to(target.dtype)


class ChaseMode(TorchFunctionMode):
    """While active, every nonlinearity of a model is a :class:`Unit`, in the order of the calls."""

    def __init__(self, units, eta, substitutes=None, normalisation="decomposed"):
        super().__init__()
        self.decomposed = normalisation == "decomposed"
        self.units, self.eta, self.substitutes = units, eta, substitutes or {}

    def step(self, t):
        self.t, self.next_unit = t, 0

    def chase(self, target, keep=None):
        unit = self.units[self.next_unit]
        self.next_unit += 1
        value = unit.chase(target, self.eta[self.t], keep)
        value.units_before = depth_of(target) + 1
        return value

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        func = self.substitutes.get(func, func)
        name = name_of(func)
        if name in NONLINEAR or name in WHOLE:
            kwargs.pop("inplace", None)
        if is_activation((args, kwargs)):
            if name in WHOLE:
                return WHOLE[name](self.chase, self.decomposed, *args, **kwargs)
            if name in ("sqrt", "pow") and (name == "sqrt" or args[1] % 1):  # what is decoded may be below 0
                args = (args[0].abs(), *args[1:])
            if name in NONLINEAR or (name in PRODUCTS and all(map(is_activation, args[:2]))):
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
    """Of what masks leave: they multiply by 0, wherever they are added as numbers of any size."""
    keep = (x > MASKED).to(x.dtype) * (1 if keep is None else keep)
    e = torch.exp(x) * keep
    e = chase(torch.exp(x), keep) * keep if decomposed else e
    return chase(e / e.sum(dim, keepdim=True), keep) * keep


MASKED = -1e4  # exp of it is 0 in any floating-point type


def log_softmax(chase, decomposed, x, dim=-1, **_):
    if not decomposed:
        return chase(torch.log_softmax(x, dim))
    return x - chase(torch.log(chase(torch.exp(x)).sum(dim, keepdim=True)))


def attention(chase, decomposed, q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
    scores = chase((q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1))
    keep = torch.ones(scores.shape[-2:]).tril() if is_causal else None
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        keep = attn_mask.float()
    elif attn_mask is not None:
        scores = scores + attn_mask
    return chase(softmax(chase, decomposed, scores, -1, keep) @ v)


def vector_norm(chase, decomposed, x, ord=2, dim=None, keepdim=False, **_):
    assert ord in (2, "fro")
    return chase(torch.sqrt(chase(x * x).sum(dim, keepdim=keepdim).abs()))


def normalize(chase, decomposed, x, p=2.0, dim=1, eps=1e-12, **_):
    return chase(x / chase(vector_norm(chase, decomposed, x, p, dim, True).clamp(min=eps)))


def variance(chase, decomposed, x, dim, keepdim=False):
    squares = chase((x - x.mean(dim, keepdim=True)) ** 2)
    return squares.sum(dim, keepdim=keepdim) / (x.shape[dim] - 1)


def glu(chase, decomposed, x, dim=-1):
    a, b = x.chunk(2, dim)
    return chase(a * chase(torch.sigmoid(b)))


def log_sigmoid(chase, decomposed, x):
    return -chase(F.softplus(-x))


def baddbmm(chase, decomposed, x, a, b):
    return x + chase(a @ b)


def einsum(chase, decomposed, equation, a, b):
    product = torch.einsum(equation, a, b)
    return chase(product) if is_activation(a) and is_activation(b) else product


def pair(size):
    return size if isinstance(size, (tuple, list)) else (size, size)


def max_pool(chase, decomposed, x, kernel_size, stride=None, padding=0, dilation=1, **_):
    """Max pooling as levels of pairwise maxima over the window, scanned row by row."""
    kernel, stride, padding = pair(kernel_size), pair(stride or kernel_size), pair(padding)

    # The window's own elements, by index; an index in the padding takes the nearest row or column of the window.
    def indices(n, k, stride, padding):
        out = (n + 2 * padding - k) // stride + 1
        index = torch.arange(out)[:, None] * stride - padding + torch.arange(k)[None]
        return index.clamp(0, n - 1)

    down, right = map(indices, x.shape[-2:], kernel, stride, padding)
    elements = [x[..., down[:, i], :][..., right[:, j]] for i in range(kernel[0]) for j in range(kernel[1])]
    while len(elements) > 1:
        pairs = len(elements) // 2
        a = torch.stack(elements[0 : 2 * pairs : 2], 1)
        b = torch.stack(elements[1 : 2 * pairs : 2], 1)
        target = torch.maximum(a, b)
        winners = chase(target.squeeze(1) if pairs == 1 else target)
        elements = ([winners] if pairs == 1 else list(winners.unbind(1))) + elements[2 * pairs :]
    return elements[0]


WHOLE = {
    "layer_norm": layer_norm, "group_norm": group_norm, "rms_norm": rms_norm, "softmax": softmax,
    "log_softmax": log_softmax, "scaled_dot_product_attention": attention, "max_pool2d": max_pool,
    "linalg_vector_norm": vector_norm, "norm": vector_norm, "normalize": normalize, "var": variance, "glu": glu,
    "log_sigmoid": log_sigmoid, "baddbmm": baddbmm, "einsum": einsum,
}  # fmt: skip
PRODUCTS = {"mul", "div", "matmul", "bmm"}  # of two activations
NONLINEAR = {
    "relu", "relu6", "leaky_relu", "prelu", "hardtanh", "clamp", "elu", "celu", "selu", "gelu", "gelu_sigmoid", "silu",
    "mish", "softplus", "hardswish", "hardsigmoid", "sigmoid", "tanh", "exp", "log", "sqrt", "rsqrt", "abs", "square",
    "pow", "reciprocal", "maximum", "minimum",
}  # fmt: skip


def gelu_sigmoid(x, approximate="none"):
    return x * torch.sigmoid(1.702 * x)


def as_call(given):
    """``(args, kwargs)`` of a tensor, a tuple of arguments or a dict of keyword arguments."""
    if isinstance(given, dict):
        return (), given
    return given if isinstance(given, tuple) else (given,), {}


def inputs_over_time(given, snn, steps):
    """What the model is called with at each step: ``(args, kwargs)`` as the encoder emits them, with their depths."""
    leaves, spec = pytree.tree_flatten(as_call(given))
    estimates = [torch.zeros_like(x) for x in leaves]
    for t in range(steps):
        emitted = []
        for i, (x, f) in enumerate(zip(leaves, estimates)):
            encoded = snn.encoder != "direct" and x.is_floating_point()
            if encoded and t < len(snn.eta):
                gradient = f - x if snn.encoder == "float" else 2 * (f >= x).to(x.dtype) - 1
                estimates[i] = f - snn.eta[t] * gradient
            emitted.append((estimates[i] if encoded else x).clone())
            emitted[-1].units_before = int(encoded) if x.is_floating_point() else EXACT
        yield pytree.tree_unflatten(emitted, spec)


def run_units(mode, model, given, snn, steps):
    """The outputs of ``model`` after each of ``steps`` with the units of ``mode`` for its nonlinearities."""
    outputs = {}
    for t, (args, kwargs) in enumerate(inputs_over_time(given, snn, max(steps))):
        mode.step(t)
        with torch.no_grad(), MarkDepth(), mode:
            outputs[t + 1] = model(*args, **kwargs)
        assert mode.next_unit == len(mode.units), f"{mode.next_unit} units, {len(mode.units)} populations"
    return [outputs[step] for step in steps]


def oracle_outputs(model, given, snn, steps, substitutes=None, normalisation="decomposed"):
    """The outputs that ``snn`` has to show after each of ``steps``, from ``model`` itself.

    ``given`` is what ``snn`` is called with, see :func:`as_call`.
    """
    units = [Unit(p.scale, p.v0) for _, p in snn.populations()]
    return run_units(ChaseMode(units, snn.eta, substitutes, normalisation), model, given, snn, steps)
