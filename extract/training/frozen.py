"""Frozen nets, built once for all batches of clips that a process embeds."""

from __future__ import annotations

from dataclasses import replace

from mvemo.extract.nets.parts.optimized import optimized
from mvemo.extract.settings import NetSettings, RunSettings
from mvemo.extract.training.devices import pick_device, resolve_precision
from mvemo.extract.training.protocols import TrainedNet, frozen_net, weight_file

# Path, modification time and size of a weight file; empty if there is none.
_FileState = tuple[str, int, int] | tuple[()]


class FrozenNets:
    """Nets of a frozen run, each built on first use.

    Loading the weights of a net and optimising it takes a second, in which a GPU embeds
    hundreds of clips. A net whose weight file has changed is built again.

    Parameters
    ----------
    run
        Settings of the run: device, precision and seed.
    n_outputs
        Number of classes, tags or regression targets.
    """

    def __init__(self, run: RunSettings, n_outputs: int) -> None:
        self._run = run
        self._n_outputs = n_outputs
        self._nets: dict[str, tuple[NetSettings, _FileState, TrainedNet]] = {}

    def get(self, settings: NetSettings) -> TrainedNet:
        """Return a net optimised for embedding; do not save its weights."""
        state = _file_state(settings)
        kept = self._nets.get(settings.name)
        if kept is None or kept[:2] != (settings, state):
            net = frozen_net(settings, self._n_outputs, self._run)
            precision = resolve_precision(self._run.precision, pick_device(self._run.device))
            kept = settings, state, replace(net, net=optimized(net.net, precision))
            self._nets[settings.name] = kept
        return kept[2]


def _file_state(settings: NetSettings) -> _FileState:
    if not settings.weights:
        return ()
    path = weight_file(settings)
    try:
        facts = path.stat()
    except OSError:
        # The reader of the file reports the error.
        return (str(path), 0, 0)
    return (str(path), facts.st_mtime_ns, facts.st_size)
