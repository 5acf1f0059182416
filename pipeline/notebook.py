"""Functions of ``import mvemo`` that do what commands do, for notebooks and programs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import fields, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypeAlias

from mvemo import cache, fuse, manifests
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.manifests.files import to_json_values

if TYPE_CHECKING:
    from mvemo.fuse.audit import Findings
    from mvemo.fuse.compare_runs import Difference
    from mvemo.fuse.final import learning, prediction_records
    from mvemo.pipeline.stage_one.summary import ExtractSummary

# One or several ``key=value``, or a mapping, which may be nested.
SettingsLike: TypeAlias = str | Iterable[str] | Mapping[str, Any]


def load(path: str | Path, **options: Any) -> manifests.Manifest:
    """Read the clips of a table or a folder.

    Parameters
    ----------
    path
        Path of a table, or of a folder with one subfolder per class.
    options
        Options of `mvemo.manifests.read_manifest` (``root``, ``columns``, ``task``, ``media``)
        for a table, or of `mvemo.manifests.scan_clips` (``infer_groups``, ``layout``) for a
        folder.

    See Also
    --------
    open_features : Open a feature file.
    """
    place = _path(path, "path")
    if place.suffix.lower() == ".h5":
        raise BadOption(f"{path}: a feature file: use mvemo.open_features")
    if place.is_dir():
        return manifests.scan_clips(path, **options).manifest
    return manifests.read_manifest(path, **options)


def open_features(path: str | Path) -> cache.Cache:
    """Open a feature file (``.h5``) for reading; close it, or use it in a ``with`` block."""
    return cache.open_cache(_path(path, "path"))


class WrongType(MvemoError, TypeError):
    """Argument of a function with an unexpected type."""


def _path(value: Any, name: str) -> Path:
    """Return an argument as a path; raise `WrongType` or BadOption if it cannot be one."""
    if not isinstance(value, str | os.PathLike):
        raise _wrong_type(value, name, "a path")
    try:
        is_path = bool(os.fspath(value)) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        is_path = False
    if not is_path:
        raise BadOption(f"{name}: {str(value)!r} cannot be a path")
    return Path(value)


def _wrong_type(value: Any, name: str, expected: str) -> WrongType:
    """Return the error for an argument of another type, with what to do."""
    hint = ""
    if hasattr(value, "to_csv"):
        hint = ": write it with to_csv(FILE, index=False), and give the file"
    elif hasattr(value, "read"):
        hint = ": write its content to a file, and give the file"
    elif isinstance(getattr(value, "path", None), str | os.PathLike):
        hint = ": give its attribute path"
    return WrongType(f"{name}: expected {expected}, got {type(value).__name__}{hint}")


def _listed(values: Any, name: str, expected: str) -> list[Any]:
    """Return one text or path, or several, as a list."""
    if isinstance(values, str | os.PathLike):
        return [values]
    # A data frame, a mapping and an open file can be iterated over, but not as paths.
    is_other = isinstance(values, bytes | Mapping) or hasattr(values, "columns")
    if is_other or hasattr(values, "read") or not isinstance(values, Iterable):
        raise _wrong_type(values, name, expected)
    listed = list(values)
    for value in listed:
        if not isinstance(value, str | os.PathLike):
            raise _wrong_type(value, name, expected)
    return listed


def _settings(values: SettingsLike) -> list[str]:
    """Return settings as texts ``key=value``."""
    if isinstance(values, Mapping):
        from mvemo.pipeline import settings_files

        # A JSON value other than an object is also valid TOML; an empty table sets nothing.
        items = settings_files.dotted(values)
        pairs = [(k, value) for k, value in items if not isinstance(value, Mapping)]
        return [f"{key}={json.dumps(to_json_values(value))}" for key, value in pairs]
    return [str(value) for value in _listed(values, "settings", "key=value, or a mapping")]


def clip_table(
    manifest: manifests.Manifest | str | Path, folds: manifests.Folds | int | None = None
) -> cache.ClipTable:
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

    manifest = manifest if isinstance(manifest, manifests.Manifest) else load(manifest)
    if folds is None:
        return clip_tables.imported_clips(manifest).table
    if isinstance(folds, SupportsIndex):
        folds = manifests.folds_of(manifest, int(folds))
    if not isinstance(folds, manifests.Folds):
        raise _wrong_type(folds, "folds", "Folds or their number")
    return clip_tables.clip_table(manifest, folds)


def extract_features(
    manifest: manifests.Manifest | str | Path,
    out: str | Path = "work/features.h5",
    *,
    profile: str = "paper",
    settings: SettingsLike = (),
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
        "nets.i3d.views=4"]``, or as a mapping, such as ``{"extract.folds": 5}``; a text is one
        setting.
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
    from mvemo.pipeline import settings_files
    from mvemo.pipeline.stage_one import division, run

    work, texts = _path(work, "work"), _settings(settings)
    if isinstance(manifest, manifests.Manifest):
        work.mkdir(parents=True, exist_ok=True)
        manifests.write_manifest(manifest, work / "manifest.csv")
        manifest = work / "manifest.csv"
    loaded = settings_files.load_settings(str(_path(profile, "profile")), texts)
    named = any(text.partition("=")[0].strip() == "extract.folds" for text in texts)
    request = division.ExtractRequest(
        _path(manifest, "manifest"),
        replace(loaded, folds_named=named),
        work,
        _path(out, "out"),
        manifests.ManifestOptions(root=None if root is None else _path(root, "root")),
    )
    return run.run_extract(request)


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

    table = None if manifest is None else _path(manifest, "manifest")
    return audit_file(_path(features, "features"), table)


def evaluate(
    X: Any,
    y: Any = None,
    groups: Any = None,
    *,
    folds: Any = None,
    profile: str | None = None,
    settings: SettingsLike = (),
    **options: Any,
) -> fuse.Results:
    """Cross-validate all models that features allow, as ``mvemo-cv`` does.

    Every clip is predicted by models that were trained without its group. For settings as an
    object, use `mvemo.fuse.evaluate`.

    Parameters
    ----------
    X
        Features: numbers of shape (clips, numbers), as an array or a data frame of pandas or
        Polars. The index has the clip ids. Several modalities are a mapping of
        names: ``{"audio": A, "lyrics": B}``, or ``{"audio:mfcc": A, "audio:vggish": B}`` for
        several features of one modality. A row with NaN is a clip without this feature, and so is
        a clip of `y` without a row. Otherwise the path of a feature file or a folder of shards.
    y
        Labels of the clips: one class for each (texts, or whole numbers), 0 or 1 for each tag
        (clips, tags), or ratings: numbers (clips,) or (clips, targets). Columns of a data frame
        name tags and targets. A feature file has its own.
    groups
        Group of each clip, such as its song, artist or film; by default each clip is a group.
    folds
        Number of folds, or the fold of each clip; None for six, or those of the file.
    profile
        Profile of the settings; None for ``paper``, or the profile that a file was made with.
    settings
        Settings of the section ``fuse`` in docs/settings.md as ``key=value``, or as a mapping,
        such as ``{"fuse": {"n_resamples": 200}}``; a text is one setting.
    options
        ``task`` (``multiclass``, ``multilabel`` or ``regression``) of `y`, if its type does not
        say it; ``seed``, ``models``, ``repeats``, ``permute_labels``, ``learning_curve``,
        ``scale`` and other fields of `mvemo.fuse.EvaluationSettings`.

    Returns
    -------
    Scores of each model with 95 % intervals; notebooks show a table, and ``to_pandas()`` returns
    a data frame.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat(["calm", "tense"], 30)
    >>> X = rng.normal(size=(60, 4)) + (y == "tense")[:, None]
    >>> results = evaluate(X, y, groups=np.arange(60) // 2, models=["features"])
    >>> results.models[0].scores["accuracy"] > 0.7
    True
    """
    from mvemo.fuse import arrays
    from mvemo.pipeline import settings_files

    name, texts = None if profile is None else str(_path(profile, "profile")), _settings(settings)
    task = options.pop("task", None)
    with ExitStack() as stack:
        store: Any
        if y is None:
            if not isinstance(X, str | os.PathLike):
                expected = "the path of a feature file, or features with their labels y"
                raise WrongType(f"X: expected {expected}, got {type(X).__name__}")
            if groups is not None or task is not None:
                raise BadOption("groups and task need labels y: a feature file has its own")
            path = _path(X, "X")
            loaded = settings_files.settings_for(path, name, texts)
            store = stack.enter_context(cache.open_cache(path))
        else:
            loaded = settings_files.settings_of_arrays(name, texts)
            store = arrays.store_of(X, y, groups, task)
        if folds is not None and not isinstance(folds, manifests.Folds | Integral):
            folds = arrays.folds_of_clips(folds, store.table)
        if isinstance(options.get("models"), Iterable):
            options["models"] = tuple(_listed(options["models"], "models", "names of models"))
        try:
            loaded = replace(loaded, folds=folds, **options)
        except TypeError:
            known = {field.name for field in fields(loaded)}
            raise WrongType(
                f"{', '.join(sorted({*options} - known))}: expected task or a field of "
                f"mvemo.fuse.EvaluationSettings: {', '.join(sorted(known))}"
            ) from None
        return fuse.evaluate(store, loaded)


def compare(
    a: fuse.Results,
    b: fuse.Results,
    *,
    models: tuple[str, str] | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """Compare a model of each of two results on the clips that both predicted.

    The folds may differ: scores are those of the pooled predictions, and the interval is paired,
    over the groups of `a`.

    Parameters
    ----------
    a, b
        What `mvemo.evaluate` returned.
    models
        Names of the models; None for the recommended ones.
    n_resamples, seed
        Number of resamples of groups for the interval, and their seed.

    Raises
    ------
    MvemoError
        Tasks or labels differ, no clip was predicted in both, or a model is unknown.

    Examples
    --------
    >>> import mvemo
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> good = mvemo.evaluate(y[:, None] + rng.normal(size=(60, 2)), y, folds=5)
    >>> bad = mvemo.evaluate(rng.normal(size=(60, 2)), y, folds=3, seed=1)
    >>> found = mvemo.compare(good, bad)
    >>> found.metric, found.n_clips, found.low < found.difference < found.high
    ('accuracy', 60, True)
    """
    from mvemo.fuse.compare_runs import compare_results

    for name, one in (("a", a), ("b", b)):
        if not isinstance(one, fuse.Results):
            raise _wrong_type(one, name, "what mvemo.evaluate returns")
    return compare_results(a, b, models, n_resamples, seed)


def learn(
    corrections: str | Path,
    features: str | Path,
    out: str | Path,
    *,
    model: str | Path | None = None,
    training: str | Path | None = None,
) -> learning.LearnResult:
    """Make a new model from corrected predictions, as ``mvemo learn`` does.

    Parameters
    ----------
    corrections
        Manifest of corrections.
    features
        Features of the clips, which ``mvemo predict --cache`` wrote with the model.
    out
        Folder of the new model.
    model
        Name or folder of the model that was corrected; None for the default.
    training
        Features that the model was made of, to train its heads again; None to adapt them.
    """
    from mvemo.fuse.final import learning
    from mvemo.pipeline.models.boxed import pick_model

    task = manifests.read_manifest(_path(corrections, "corrections"), media=False).task
    folder = pick_model(model, task=task)
    return learning.learn(
        corrections, features, model=folder, out=_path(out, "out"), training=training
    )


def predict(
    paths: str | Path | Iterable[str | Path],
    model: str | Path | None = None,
    *,
    modality: Literal["audio", "video", "both"] = "both",
    weights: Mapping[str, str | Path] | None = None,
    device: str = "auto",
    coverage: float | None = None,
    per_class: bool = False,
    jointly: bool = False,
    relative: bool = False,
) -> prediction_records.Records:
    """Predict the emotion of clips, as ``mvemo predict --json`` does.

    Parameters
    ----------
    paths
        Media files, folders, name patterns and lists (``.csv``), or one feature file (``.h5``).
    model
        Name of a model included in mvemo, or a folder written by ``mvemo fuse --final``. None for
        ``songs``, or for ``music-video`` if all files have pictures.
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
    relative
        Add ranks, standard scores and quadrants within these clips (10 or more).

    Returns
    -------
    List with one record per clip, as in docs/outputs.md; if a clip cannot be read, it has
    ``error``. Notebooks show a table, and ``to_pandas()`` returns a data frame.
    """
    from mvemo.extract.settings import check_device
    from mvemo.fuse.final import model as models
    from mvemo.fuse.final import prediction_records
    from mvemo.pipeline.prediction import relative as relatives
    from mvemo.pipeline.prediction import request as requests

    if not isinstance(coverage, int | float | None):
        raise _wrong_type(coverage, "coverage", "a number")
    if modality not in requests.MODALITIES:
        raise BadOption(f"modality {modality!r}: expected 'audio', 'video' or 'both'")
    if not isinstance(weights, Mapping | None):
        raise _wrong_type(weights, "weights", "a mapping of nets to paths")
    request = requests.PredictRequest(
        [os.fspath(path) for path in _listed(paths, "paths", "paths")],
        None if model is None else str(_path(model, "model")),
        modality,
        {net: _path(file, f"weights of {net}") for net, file in (weights or {}).items()},
        check_device(str(device), "device"),
        models.asked_of(coverage, per_class=per_class, jointly=jointly),
    )
    found = relatives.compared(*requests.predict(request), relative, "give relative=True")
    return prediction_records.records(*found)
