"""Training of a final model's heads again, on its own clips and on corrected ones."""

from dataclasses import replace

import numpy as np

from mvemo.cache import Cache
from mvemo.cache.table import subset
from mvemo.fuse import features, models, stores
from mvemo.fuse.crossval import evaluation, evaluation_settings
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.final import adaptation, building, corrections
from mvemo.fuse.final.model import FinalModel, short_keys, stored_as
from mvemo.fuse.heads.head import HeadSettings
from mvemo.manifests.array_types import F64


def retrained_model(
    base: FinalModel, corrected: corrections.CorrectedClips, cache: Cache
) -> tuple[FinalModel, F64]:
    """Train the heads on the model's own clips and the corrected ones; see `adapted_model`."""
    recorded = base.facts["provenance"]["settings"]
    both = stores.joined([_own(base, corrected, cache), corrected.store])
    settings = evaluation_settings.EvaluationSettings(
        **{name: recorded[name] for name in ("stacked", "late", "missing_modality")},
        folds=base.facts["folds"],
        scale=base.facts.get("scale", ""),
        head=HeadSettings(**recorded["head"]),
        kernel=any(predictor.name in models.WITH_KERNEL for predictor in base.predictors),
        refit=True,
        audit=False,
        n_resamples=0,
    )
    results = evaluation.evaluate(both, settings)
    new = building.build_model(both, results, settings, base.predictors[0].name)
    keys = np.union1d(base.training_keys, corrected.keys(base))
    about = {"about": base.facts["about"]} if "about" in base.facts else {}
    new = replace(new, training_keys=keys, facts={**new.facts, **about})
    outputs = {model.name: model.outputs for model in results.models}
    ranked = [outputs[p.name] for p in new.predictors if p.name in outputs]
    return new, adaptation.first_of(np.stack(ranked)[:, -len(corrected.clips.groups) :])


def _own(
    base: FinalModel, corrected: corrections.CorrectedClips, cache: Cache
) -> stores.MemoryStore:
    """Return the clips that the model was made of, without corrected ones."""
    recorded = base.facts["provenance"]["settings"]
    lld = tuple(recorded["lld"]) if any(s.name == features.LLD for s in base.specs) else ()
    plain = features.FeatureSettings(lld=lld, lld_statistics=tuple(recorded["lld_statistics"]))
    cached = features.Features(cache, plain)
    specs = {spec.name: spec for name in cached.modality for spec in cached.variants[name]}
    stored = dict.fromkeys(stored_as(spec)[0] for spec in base.specs)
    keys = [cache.keys(name).tolist() for name in stored]
    if (
        any(spec.fold is not None or specs.get(spec.name) != spec for spec in base.specs)
        or cache.table.classes != base.classes
        or not np.array_equal(short_keys(key for of in keys for key in of), base.training_keys)
    ):
        raise BadFeatures(
            f"--training {cache.path}: expected the features that {base.name} was made from, by "
            "nets that were not trained on its clips: give this file, or leave out --training"
        )
    replaced, every = corrected.keys(base), zip(*keys, strict=True)
    kept = [all(not k or int(k[:16], 16) not in replaced for k in row) for row in every]
    rows = np.flatnonzero(kept)
    vectors = []
    for spec in base.specs:
        matrix = cached.raw_matrix(spec.name, None)
        values = np.where(matrix.present[:, None], np.asarray(matrix.values), np.nan)
        vectors.append((spec, values[rows].astype(np.float32)))
    table, classes = subset(cache.table, rows.tolist()), corrected.store.table.classes
    return stores.MemoryStore(replace(table, name=base.name, classes=classes), vectors, cache.path)
