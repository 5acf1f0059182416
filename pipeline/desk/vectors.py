"""Vectors of clips or of windows, by the nets of a model or by chosen nets, and their tables.

Tables are written and read in blocks, so that memory does not grow with their length. Columns:
``id`` (text), ``start`` and ``end`` (seconds), ``vector`` (in Parquet a list of float32, in CSV a
list as in JSON). For the search for similar songs, each id has one row.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.extract.nets.parts.fast_conv import optimized
from mvemo.extract.pretrained import with_fetched_weights
from mvemo.extract.training.protocols import frozen_net
from mvemo.fuse.crossval.saving import SavedHeads
from mvemo.fuse.final.model import FeatureKey, FinalModel, Predictor
from mvemo.fuse.scaling import Rows
from mvemo.manifests import files, tables
from mvemo.manifests.array_types import F32
from mvemo.manifests.errors import BadFile, BadOption, MvemoError
from mvemo.pipeline import settings_files, starting_weights
from mvemo.pipeline.prediction import embedding, new_clips, windows
from mvemo.pipeline.prediction.feature_maker import FeatureMaker
from mvemo.pipeline.prediction.new_clips import EmbeddedClip, NewClip, PredictSettings
from mvemo.pipeline.prediction.request import MODALITIES, PredictRequest, clips_and_settings

COLUMNS = ("id", "start", "end", "vector")
BLOCK = 4096  # rows that are written, or read, at a time

Row = tuple[str, float, float, F32]  # values of `COLUMNS`
# A clip, a time range of its file in seconds, its vector, float32 (dim,), or why there is none.
ClipVector = tuple[NewClip, windows.Span, F32 | None, str]


class ChosenNets(FeatureMaker):
    """Features of pretrained nets, without a model that reads them.

    BadOption is raised for an unknown net, and for one without weights.
    """

    def __init__(self, names: str, settings: PredictSettings) -> None:
        listed = [name.strip() for name in names.split(",")]
        overrides = [
            settings_files.Override(f"extract.nets={json.dumps(listed)}", f"--nets {names}"),
            settings_files.Override(
                f"extract.device={settings.device}", f"--device {settings.device}"
            ),
        ]
        for net, file in settings.weights.items():
            given = f"--weights {net}={file}"
            overrides.append(settings_files.Override(f"nets.{net}.weights='''{file}'''", given))
        stage_one = settings_files.load_settings("pretrained", overrides)
        run = stage_one.extract.run
        plans = [with_fetched_weights(stage_one.nets[name], run.protocol) for name in listed]
        starting_weights.refuse_missing_weights(plans, stage_one)
        plans, left_out = starting_weights.fetch_missing_weights(plans, stage_one)
        if left_out:
            raise BadOption(f"--nets {names}: {left_out[0]}")
        trained = [frozen_net(plan, 0, run) for plan in plans]
        specs = tuple(net.spec for net in trained)
        modalities = tuple(sorted({spec.modality for spec in specs}))
        predictor = Predictor(names, tuple(s.name for s in specs), modalities, {})
        heads = SavedHeads((), (), (), {})
        self.model: FinalModel = FinalModel(names, "multilabel", heads, specs, (predictor,), {})
        self.folder: Path = Path(names)
        self.options = settings
        self.unavailable: dict[str, str] = {}
        self._descriptors = stage_one.descriptors
        self._nets = {t.spec.digest: optimized(t.net, run.precision) for t in trained}


def clips_and_maker(
    request: PredictRequest, nets: str | None
) -> tuple[list[NewClip], FeatureMaker | None]:
    """Return the clips, and the features of a model or of nets; None if no clip can be read."""
    if nets is None:
        clips, folder, settings = clips_and_settings(request)
        return clips, None if all(c.problem for c in clips) else FeatureMaker(folder, settings)
    clips, modality = new_clips.find_clips(request.inputs, request.columns), request.modality
    read = new_clips.modalities_of(clips) if modality == "both" else MODALITIES[modality]
    settings = PredictSettings(read, request.weights, request.device)
    return clips, None if all(c.problem for c in clips) else ChosenNets(nets, settings)


def joined_features(maker: FeatureMaker) -> dict[FeatureKey, int]:
    """Return the features that make up a vector, in order, with their sizes.

    These are the features of the model's best predictor for the settings' modalities.
    """
    maker.features()
    best = maker.model.best(maker.options.modalities, maker.unavailable)
    assert best is not None  # `features` raised an error otherwise
    return {(name, s.fold): s.dim for name in best.features for s in maker.model.variants(name)}


def joined_vector(keys: Sequence[FeatureKey], clip: EmbeddedClip) -> tuple[F32 | None, str]:
    """Return the joined vector of a clip, float32 (dim,), or None and the reason."""
    if all(key in clip.vectors for key in keys):
        return np.concatenate([clip.vectors[key] for key in keys], dtype=np.float32), ""
    reasons = [f"{modality}: {reason}" for modality, reason in clip.reasons.items() if reason]
    return None, clip.problem or "; ".join(reasons) or "the clip lacks what the nets read"


def embed_clips(maker: FeatureMaker, clips: Sequence[NewClip]) -> Iterator[ClipVector]:
    """Yield one vector per clip, of the windows that `mvemo predict` reads."""
    keys = [*joined_features(maker)]
    for batch in embedding.BatchReader(maker).read(dict(enumerate(clips))):
        for _, found in batch:
            vector, problem = joined_vector(keys, found)
            span = found.clip.start, found.clip.start + found.windows.length
            yield found.clip, span, vector, problem


def embed_windows(
    maker: FeatureMaker, clips: Sequence[NewClip], hop: float, window: float
) -> Iterator[ClipVector]:
    """Yield the vectors of windows of `window` seconds that begin every `hop` seconds.

    A clip is decoded once, and what windows share is embedded once.
    """
    keys = [*joined_features(maker)]
    for clip in clips:
        try:
            seconds = new_clips.clip_seconds(clip)
            starts = np.arange(0.0, max(seconds - window / 2, hop / 2), hop).tolist()
            spans = tuple((start, min(start + window, seconds)) for start in starts)
            plan = windows.WindowPlan(seconds, spans, view_step=hop, piece_step=hop)
            with maker.open(clip, plan, lambda share: None) as read:
                present, problem = {*keys} & {*read.features}, "no window has all features"
                for start, end in spans:
                    vectors = read.vectors((start, end), keys=present)
                    if len(vectors) == len(keys):
                        problem = ""
                        joined = np.concatenate([vectors[key] for key in keys], dtype=np.float32)
                        yield clip, (clip.start + start, clip.start + end), joined, ""
                if problem:
                    listed = [f"{modality}: {why}" for modality, why in read.problems.items()]
                    yield clip, (0.0, 0.0), None, "; ".join(listed) or problem
        except MvemoError as error:
            yield clip, (0.0, 0.0), None, str(error).removeprefix(f"{clip.path}: ")


# --- tables


def write_vectors(path: Path, rows: Iterable[Row], dim: int, facts: Mapping[str, Any]) -> None:
    """Write a table atomically; a Parquet file has `facts` in its metadata, as JSON."""
    source = iter(rows)
    blocks = iter(lambda: [*islice(source, BLOCK)], [])
    with files.replacing(path) as temp:
        if path.suffix.lower() not in tables.PARQUET:
            with temp.open("w", encoding="utf-8", newline="") as file:
                tables.CsvWriter(file).writerow(COLUMNS)
                for *others, vector in (row for block in blocks for row in block):
                    tables.CsvWriter(file).writerow([*others, json.dumps(vector.tolist())])
            return
        # pyarrow has no types, and is only installed with pandas.
        arrow: Any = import_module("pyarrow")
        kinds = [arrow.string(), *[arrow.float64()] * 2, arrow.list_(arrow.float32(), dim)]
        schema = arrow.schema([*zip(COLUMNS, kinds, strict=True)], {"mvemo": json.dumps(facts)})
        with import_module("pyarrow.parquet").ParquetWriter(temp, schema) as writer:
            for block in blocks:
                *columns, vectors = zip(*block, strict=True)
                flat = arrow.FixedSizeListArray.from_arrays(np.concatenate(vectors), dim)
                writer.write_table(arrow.table([*map(list, columns), flat], schema=schema))


def read_vectors(path: Path) -> tuple[list[str], Rows]:
    """Return the ids of a table and its vectors, which are read from the file in each pass.

    BadFile is raised if it is no such table, if an id has several rows, or for a bad vector.
    """
    ids, dim = list[str](), 0
    for _, names, values in _blocks(path):
        dim = dim or values.shape[1]
        usable = np.isfinite(values).all(axis=1) & (values.shape[1] == dim)
        if not usable.all():
            name = names[int(usable.argmin())]
            raise BadFile(f"{path}: {name}: expected a vector of {dim} finite numbers")
        ids += names
    if not dim:
        raise BadFile(f"{path}: expected vectors, got no row with a number")
    name, n = Counter(ids).most_common(1)[0]
    if n > 1:
        raise BadFile(f"{path}: {name} has {n} rows, expected 1: leave out --hop of mvemo embed")
    return ids, Rows((len(ids), dim), lambda: ((at, values) for at, _, values in _blocks(path)))


def _blocks(path: Path) -> Iterator[tuple[slice, Sequence[str], F32]]:
    """Yield rows, ids and vectors, float32 (rows, dim)."""
    start, read = 0, _read_parquet if path.suffix.lower() in tables.PARQUET else _read_csv
    try:
        for names, values in read(path):
            yield slice(start, start + len(names)), names, values
            start += len(names)
    except (KeyError, ValueError, AttributeError) as error:
        problem = f"expected the columns id and vector of mvemo embed: {error}"
        raise BadFile(f"{path}: {problem}") from None


def _read_parquet(path: Path) -> Iterator[tuple[Sequence[str], F32]]:
    # Otherwise all columns are read into memory first.
    with import_module("pyarrow.parquet").ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(BLOCK, columns=["id", "vector"]):
            flat = np.asarray(batch["vector"].flatten(), np.float32)
            yield batch["id"].to_pylist(), flat.reshape(batch.num_rows, -1)


def _read_csv(path: Path) -> Iterator[tuple[Sequence[str], F32]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        while block := [*islice(rows, BLOCK)]:
            vectors = [row["vector"].strip("[]").split(",") for row in block]
            yield [tables.unguarded(row["id"]) for row in block], np.array(vectors, np.float32)
