"""The signGD neuron as a module of SpikingJelly (the optional extra ``spikingjelly``).

``functional.reset_net`` and ``functional.set_step_mode`` of SpikingJelly act on any module, and warn about those that
are not its own. This :class:`SignGDNeuron` is one of its own. SpikingJelly 2.0 dropped ``functional.set_backend``;
:func:`set_backend` does here what that did.
"""

from __future__ import annotations

from spikingjelly.activation_based import base
from torch import nn

from .backends import backends
from .modules import SignGDNeuron as Neuron

__all__ = ["SignGDNeuron", "set_backend"]


class _MemoryModule(base.MemoryModule):
    def _apply(self, fn, recurse: bool = True):
        """SpikingJelly's takes no ``recurse``; a neuron has no children that it would leave out."""
        return super()._apply(fn)


class SignGDNeuron(Neuron, _MemoryModule):
    """:class:`snn_kernels.SignGDNeuron` that SpikingJelly takes for a ``MemoryModule``: same arguments, same spikes."""

    @property
    def supported_backends(self) -> tuple[str, ...]:
        """The backends that can run here."""
        return tuple(name for name, backend in backends().items() if backend.available)


def set_backend(net: nn.Module, backend: str | None) -> None:
    """Set the backend of every signGD neuron in ``net``; ``None`` chooses at each call.

    Raises:
        ValueError: the backend does not exist or cannot run here.
    """
    here = backends()
    if backend is not None and (backend not in here or not here[backend].available):
        reason = here[backend].reason if backend in here else f"there is none of that name, only {', '.join(here)}"
        raise ValueError(f"backend: {backend!r} cannot run: {reason}")
    for module in net.modules():
        if isinstance(module, Neuron):
            module.backend = backend
