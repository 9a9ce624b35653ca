"""The signGD neuron as a module of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .activations import ActivationSpec, resolve
from .backends import check_name
from .checks import kind
from .ops.neuron.state import NeuronState, checked_momentum
from .ops.signgd import signgd
from .schedules import Schedule, Table, Uniform
from .spike_train import SpikeTrain

__all__ = ["SignGDNeuron"]

STEP_MODES = ("m", "s")
FIELDS = ("scale", "offset", "bias", "v0")


class SignGDNeuron(nn.Module):
    """A population of signGD neurons that chases ``h(x)``; see :func:`snn_kernels.signgd` for the dynamics.

    It emits 0 and 1 and nothing else: where ``scale`` is not 1, the network that follows multiplies the spikes by it
    (or has it folded into its weights).

    Args:
        activation: name of ``h``, or a tuple of the name and its parameters.
        schedule: step sizes, see :mod:`snn_kernels.schedules`; not ``Uniform``, for how many steps come is not known.
        step_mode: ``"m"``: a call takes the currents of all steps, ``[T, B, *]``; ``"s"``: of one step, ``[B, *]``.
        backend: ``None`` for the fastest here, or a name that runs or raises.
        scale: what a spike is worth downstream.
        offset: the current with every feeding neuron firing plus the current with none firing.
        bias: the decoded input before the first step. :func:`snn_kernels.calibrate_offsets` measures it and ``offset``.
        v0: the estimate before the first step. ``scale``, ``offset``, ``bias`` and ``v0`` are numbers or float32
            tensors that broadcast to ``[B, *]``; they are buffers and stay float32 whatever the module is cast to.
        momentum, nesterov: of both updates, see :func:`snn_kernels.signgd`; those of the feeding neurons too.
        packed: return a :class:`SpikeTrain` (step mode ``"m"`` only) instead of dense spikes.
        max_timesteps: length of the step-size table: how many steps may pass from one ``reset()`` to the next. With a
            ``Table`` no more than it has.

    Shape:
        Currents of float32, float16 or bfloat16, any memory format; spikes of the same shape, dtype and format.

    State persists from call to call, the step index too, until :meth:`reset`; both step modes give the same train. It
    is no part of ``state_dict()``. A program made by ``torch.export`` runs one train from the state after ``reset()``
    and keeps none.

    Raises:
        TypeError, ValueError: an argument that does not fit; it is named.
        RuntimeError: more than ``max_timesteps`` steps since the last reset.
    """

    def __init__(
        self,
        activation: ActivationSpec,
        schedule: Schedule,
        *,
        step_mode: str = "m",
        backend: str | None = None,
        scale: Tensor | float = 1.0,
        offset: Tensor | float = 1.0,
        bias: Tensor | float = 0.0,
        v0: Tensor | float = 0.0,
        momentum: float = 0.0,
        nesterov: bool = False,
        packed: bool = False,
        max_timesteps: int = 1024,
    ) -> None:
        super().__init__()
        row, parameters = resolve(activation, 1)
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedule: expected a snn_kernels.schedules.Schedule, got {schedule!r}")
        if isinstance(schedule, Uniform):
            raise ValueError(f"schedule: expected step sizes that do not depend on how many come, got {schedule!r}")
        if not isinstance(max_timesteps, int) or max_timesteps < 1:
            raise ValueError(f"max_timesteps: expected an integer >= 1, got {max_timesteps!r}")
        if isinstance(schedule, Table):
            max_timesteps = min(max_timesteps, len(schedule.values))
        check_name(backend)
        self.activation = row.name
        self.schedule = schedule
        self.momentum, self.nesterov = checked_momentum(momentum, nesterov)
        self._packed = packed
        self.step_mode = step_mode
        self.backend = backend
        for name, value in zip(FIELDS, (scale, offset, bias, v0)):
            self.register_buffer(name, _float32(name, value))
        self._parameter_names = [name for name, _ in row.parameters]
        for name, value in zip(self._parameter_names, parameters):
            self.register_buffer(name, _float32(name, value))
        self.register_buffer("_eta", schedule.table(max_timesteps).to(self.scale.device), persistent=False)
        self._probe = None
        self.reset()

    @property
    def step_mode(self) -> str:
        """``"m"``: calls take all steps; ``"s"``: one."""
        return self._step_mode

    @step_mode.setter
    def step_mode(self, value: str) -> None:
        if value not in STEP_MODES:
            raise ValueError(f"step_mode: expected one of {', '.join(STEP_MODES)}; got {value!r}")
        _check_packed(self.packed, value)
        self._step_mode = value

    @property
    def packed(self) -> bool:
        """Whether calls return a :class:`SpikeTrain`."""
        return self._packed

    @packed.setter
    def packed(self, value: bool) -> None:
        _check_packed(value, self.step_mode)
        self._packed = value

    def reset(self) -> None:
        """Forget the state: the next call begins a new train at step 0."""
        self._state: NeuronState | None = None
        # A tensor, because a number would make torch.compile compile every step anew.
        self._step: Tensor | None = None

    @property
    def state(self) -> NeuronState | None:
        """Decoded input and estimate after the last call; ``None`` after a reset."""
        return self._state

    @property
    def timestep(self) -> int:
        """Steps since the last reset (waits for the device where that is a GPU)."""
        return 0 if self._step is None else int(self._step)

    def forward(self, current: Tensor) -> Tensor | SpikeTrain:
        if self._probe is not None:
            return self._probe(current)
        if not isinstance(current, Tensor) or current.ndim < (2 if self.step_mode == "m" else 1):
            expected = "[T, B, *]" if self.step_mode == "m" else "[B, *]"
            raise ValueError(f"current: expected {expected} in step_mode {self.step_mode!r}, got {kind(current)}")
        if self.step_mode == "s":
            return self._advance(current.unsqueeze(0)).unpack(current.dtype)[0]
        train = self._advance(current)
        return train if self.packed else train.unpack(current.dtype)

    def _advance(self, current: Tensor) -> SpikeTrain:
        exporting = _is_exporting()
        state, step = (None, None) if exporting else (self._state, self._step)
        if state is not None and state.v.shape != current.shape[1:]:
            raise ValueError(
                f"current: expected a population of shape {tuple(state.v.shape)}, as in the steps before, got "
                f"{kind(current)}; reset() begins a new train"
            )
        train, state = signgd(
            current,
            self._next_eta(step, current.shape[0]),
            (self.activation, *(getattr(self, name) for name in self._parameter_names)),
            offset=self.offset,
            bias=self.bias,
            scale=self.scale,
            v0=self.v0,
            momentum=self.momentum,
            nesterov=self.nesterov,
            state=state,
            backend=self.backend,
        )
        if not exporting:
            begin = torch.zeros((), dtype=torch.int64, device=self._eta.device) if step is None else step
            self._state, self._step = state, begin + current.shape[0]
        return train

    def _next_eta(self, step: Tensor | None, timesteps: int) -> Tensor:
        """The step sizes of ``timesteps`` steps from ``step`` on."""
        most = self._eta.shape[0]
        if timesteps > most:
            raise ValueError(f"current: expected at most max_timesteps={most} steps, got {timesteps}")
        if step is None:
            return self._eta[:timesteps]
        torch._assert_async(step + timesteps <= most, f"max_timesteps: more than {most} steps since the last reset()")
        return self._eta[step + torch.arange(timesteps, device=self._eta.device)]

    def _apply(self, fn, recurse: bool = True):
        """Moves to other devices, but casts nothing: the arithmetic contract is float32 whatever the currents are."""

        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        if self._state is not None:
            x, v, m = self._state
            self._state = NeuronState(keep_dtype(x), keep_dtype(v), tuple(map(keep_dtype, m)))
            self._step = keep_dtype(self._step)
        return super()._apply(keep_dtype, recurse)

    def _load_from_state_dict(self, state_dict, prefix, *arguments) -> None:
        """A calibrated offset has a shape that a fresh module does not know."""
        for name, buffer in list(self._buffers.items()):
            saved = state_dict.get(prefix + name)
            if saved is not None and saved.shape != buffer.shape:
                setattr(self, name, torch.empty(saved.shape, dtype=torch.float32, device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        momentum = f", momentum={self.momentum}, nesterov={self.nesterov}" if self.momentum else ""
        packed = ", packed=True" if self.packed else ""
        return f"{self.activation!r}, {self.schedule!r}, step_mode={self.step_mode!r}{momentum}{packed}"


def _check_packed(packed: bool, step_mode: str) -> None:
    if packed and step_mode == "s":
        raise ValueError("packed: a packed train needs step_mode 'm': eight steps share a byte")


@torch.compiler.assume_constant_result
def _is_exporting() -> bool:
    """Asked as Python does: in what it traces, torch.compile of PyTorch 2.11 takes the answer for True."""
    return torch.compiler.is_exporting()


def _float32(name: str, value: Tensor | float) -> Tensor:
    """A number or a float32 tensor as a tensor of its own."""
    if isinstance(value, Tensor):
        if value.dtype != torch.float32:
            raise TypeError(f"{name}: expected float32, got {kind(value)}")
        return value.detach().clone()
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number or a tensor, got {kind(value)}")
    return torch.tensor(float(value), dtype=torch.float32)
