"""Functions of ``import mvemo`` that do what commands do, for notebooks and programs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mvemo.manifests import Folds, Manifest, folds_of, read_manifest, scan_clips, write_manifest

if TYPE_CHECKING:
    from mvemo.cache import Cache, ClipTable
    from mvemo.fuse.audit import Findings
    from mvemo.fuse.results import Results
    from mvemo.pipeline.prediction.predictions import Records
    from mvemo.pipeline.stage_one.summary import ExtractSummary


def load(path: str | Path, **options: Any) -> Manifest | Cache | Any:
    """Read the clips of a table or a folder, or open a feature file.

    Parameters
    ----------
    path
        Path of a table, a folder with one subfolder per class, or a feature file (``.h5``).
    options
        Options of `mvemo.manifests.read_manifest` (``root``, ``columns``, ``task``, ``media``)
        for a table, or of `mvemo.manifests.scan_clips` (``infer_groups``, ``layout``) for a
        folder.

    Returns
    -------
    `Manifest` of a table or a folder; open `Cache` of a feature file.
    """
    if Path(path).suffix.lower() == ".h5":
        from mvemo.cache import open_cache

        return open_cache(path, **options)
    return _clips(path, **options)


def _clips(path: str | Path, **options: Any) -> Manifest:
    if Path(path).is_dir():
        return scan_clips(path, **options).manifest
    return read_manifest(path, **options)


def _several(values: Any) -> Sequence[Any]:
    """Return the values of a sequence, or one value as a list."""
    return [values] if isinstance(values, str | Path) else values


def clip_table(manifest: Manifest | str | Path, folds: Folds | int | None = None) -> ClipTable:
    """Return a manifest's clips as a cache stores them, to add features of other programs.

    Parameters
    ----------
    manifest
        Labelled clips, or the path of their table or folder.
    folds
        Folds, or their number. None for the split of the manifest or, if it has none, for folds
        that are made when heads are fitted.
    """
    from mvemo.pipeline.clips import clip_tables

    manifest = manifest if isinstance(manifest, Manifest) else _clips(manifest)
    if folds is None:
        return clip_tables.imported_clips(manifest).table
    folds = folds_of(manifest, folds) if isinstance(folds, int) else folds
    return clip_tables.clip_table(manifest, folds)


def extract_features(
    manifest: Manifest | str | Path,
    out: str | Path = "work/features.h5",
    *,
    profile: str = "paper",
    settings: str | Sequence[str] = (),
    work: str | Path = "work",
    root: str | Path | None = None,
) -> ExtractSummary:
    """Decode, train and embed the clips of a manifest, as ``mvemo extract`` does.

    Parameters
    ----------
    manifest
        Clips, or the path of their table.
    out
        Path of the feature file to write. An interrupted run continues where it stopped.
    profile
        ``paper``, ``best``, ``pretrained`` (nothing is trained), ``demo`` or the path of a TOML
        file.
    settings
        Settings of docs/settings.md as ``key=value``, for example ``["extract.folds=5",
        "nets.i3d.views=4"]``; a text is one setting.
    work
        Folder for decoded media and trained nets.
    root
        Folder that the paths in a table are relative to; None for the folder that the table
        states.

    Returns
    -------
    Path of the feature file, names of the features, and failures; ``text()`` returns what the
    command prints.
    """
    from mvemo.pipeline.settings_files import load_settings
    from mvemo.pipeline.stage_one.run import run_extract

    work, settings = Path(work), _several(settings)
    if isinstance(manifest, Manifest):
        work.mkdir(parents=True, exist_ok=True)
        write_manifest(manifest, work / "manifest.csv")
        manifest = work / "manifest.csv"
    loaded = load_settings(profile, settings)
    named = any(text.partition("=")[0].strip() == "extract.folds" for text in settings)
    return run_extract(
        Path(manifest),
        replace(loaded, folds_named=named),
        work=work,
        out=Path(out),
        root=None if root is None else Path(root),
    )


def audit(features: str | Path, manifest: str | Path | None = None) -> Findings:
    """Look for faults of the data in a feature file, as ``mvemo audit`` does.

    Parameters
    ----------
    features
        Feature file, or folder of shards.
    manifest
        Table whose column ``split`` is compared, too.
    """
    from mvemo.fuse.audit import audit_file

    return audit_file(features, manifest)


def evaluate(
    features: str | Path, *, profile: str | None = None, settings: str | Sequence[str] = ()
) -> Results:
    """Cross-validate all models that a feature file allows, as ``mvemo fuse`` does.

    For an open cache and settings as an object, use `mvemo.fuse.evaluate`.

    Parameters
    ----------
    features
        Path of a feature file, or of a folder of shards.
    profile
        Profile of the settings; None for the profile that the features were made with.
    settings
        Settings of the section ``fuse`` in docs/settings.md as ``key=value``; a text is one
        setting.
    """
    from mvemo.cache import open_cache
    from mvemo.fuse.crossval.evaluation import evaluate as evaluate_cache
    from mvemo.pipeline.stage_two import settings_for

    loaded = settings_for(Path(features), profile, _several(settings))
    with open_cache(features) as cache:
        return evaluate_cache(cache, loaded)


def predict(
    paths: str | Path | Sequence[str | Path],
    model: str | Path | None = None,
    *,
    modality: Literal["audio", "video", "both"] = "both",
    weights: Mapping[str, str | Path] | None = None,
    device: str = "auto",
    coverage: float | None = None,
    per_class: bool = False,
    jointly: bool = False,
) -> Records:
    """Predict the emotion of clips, as ``mvemo predict --json`` does.

    Parameters
    ----------
    paths
        Media files, folders, name patterns and lists (``.csv``), or one feature file (``.h5``).
    model
        Name of a model included in mvemo (None for ``music-video``), or a folder written by
        ``mvemo fuse --final``.
    modality
        Modalities of the files to read.
    weights
        Name of a net to its file of pretrained weights, if weights cannot be downloaded.
    device
        ``auto``, ``cpu`` or ``cuda``.
    coverage
        Share of new clips, such as 0.9, whose truth the sets or intervals shall hold.
    per_class, jointly
        With `coverage`: hold the truth for this share of each class or tag; hold all ratings of a
        clip at once for this share of the clips.

    Returns
    -------
    List with one record per clip, as in docs/outputs.md; if a clip cannot be read, it has
    ``error``. Notebooks show a table, and ``to_pandas()`` returns a data frame.
    """
    from mvemo.fuse.final.model import asked_of
    from mvemo.pipeline.errors import BadOption
    from mvemo.pipeline.prediction.predictions import records

    asked = asked_of(coverage, per_class=per_class, jointly=jointly)
    if modality not in ("audio", "video", "both"):
        raise BadOption(f"modality {modality!r}: expected 'audio', 'video' or 'both'")
    entries = [os.fspath(path) for path in _several(paths)]
    name = None if model is None else os.fspath(model)
    if len(entries) == 1 and entries[0].lower().endswith(".h5"):
        from mvemo.pipeline.models.boxed import pick_model
        from mvemo.pipeline.prediction.predictions import predict_features

        modalities = ("audio", "video") if modality == "both" else (modality,)
        file, folder = Path(entries[0]), pick_model(name)
        return records(*predict_features(folder, file, modalities, asked))
    from mvemo.pipeline.prediction.new_clips import clips_and_settings

    files = {net: Path(file) for net, file in (weights or {}).items()}
    clips, folder, options = clips_and_settings(entries, name, modality, files, device, asked)

    from mvemo.pipeline.prediction.run import predict_files

    return records(*predict_files(folder, clips, options))
