"""Which features, failures and facts of several runs a cache may hold together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

from mvemo.cache.errors import BadCache
from mvemo.cache.spec import FeatureSpec
from mvemo.cache.storage.encoding import to_json
from mvemo.cache.storage.layout import feature_label
from mvemo.cache.storage.opening import code_version
from mvemo.cache.table import TEST, ClipTable
from mvemo.cache.types import Curves, Failures, Reason
from mvemo.cache.writing.plan import PlannedFeature
from mvemo.cache.writing.sources import Source, describe

# Earlier runs whose provenance is kept under "history".
HISTORY = 20


def same_family(a: FeatureSpec, b: FeatureSpec) -> bool:
    """Whether a cache may hold two specs of one name: crossfit nets of two folds."""
    return (
        a.fold is not None
        and b.fold is not None
        and a.fold != b.fold
        and replace(a, fold=None, weights="").digest == replace(b, fold=None, weights="").digest
    )


def resolve(
    features: Mapping[str, PlannedFeature], requested: Mapping[str, FeatureSpec]
) -> dict[str, PlannedFeature]:
    """Keep the most recent spec of each name and fold, and those compatible with it.

    Parameters
    ----------
    features
        Spec digest to plan, the most recent last.
    requested
        Digest to the specs that the current run requests, the most recent last. They come
        before all others, and displace those of another kind even when they have no rows:
        values of other parameters are no substitute for values that failed.
    """
    specs = {d: f.spec for d, f in features.items() if d not in requested} | dict(requested)
    kept: dict[str, FeatureSpec] = {}
    for digest in reversed(specs):
        spec = specs[digest]
        if all(same_family(spec, s) for s in kept.values() if s.name == spec.name):
            kept[digest] = spec
    return in_order({d: features[d] for d in kept if d in features})


def in_order(features: Mapping[str, PlannedFeature]) -> dict[str, PlannedFeature]:
    """Features by name and fold, whatever order they came in."""
    return dict(sorted(features.items(), key=lambda f: (f[1].spec.name, f[1].spec.fold or 0, f[0])))


def curve_names(spec: FeatureSpec) -> set[str]:
    """Names of the training curves of a feature's net."""
    if spec.fold is not None:
        return {feature_label(spec)}
    return {spec.name, f"{spec.name}@all", f"{spec.name}@holdout"}


def remaining_curves(sources: Sequence[Source], features: Mapping[str, PlannedFeature]) -> Curves:
    """All curves but those of nets whose features another protocol's replaced."""
    live: set[str] = set()
    dropped: set[str] = set()
    for feature in features.values():
        live |= curve_names(feature.spec)
    for source in sources:
        for digest, index in source.indexes.items():
            if digest not in features:
                dropped |= curve_names(index.spec)
    curves: Curves = {}
    for source in sources:
        curves.update(source.curves)
    return {name: curve for name, curve in curves.items() if name not in dropped - live}


def refuse_rivals(features: Mapping[str, PlannedFeature], where: str) -> None:
    """Refuse features that a cache may not hold together.

    Raises
    ------
    BadCache
        Two specs of one name are neither the same nor nets of two folds.
    """
    specs = [feature.spec for feature in features.values()]
    for i, a in enumerate(specs):
        for b in specs[:i]:
            if a.name == b.name and not same_family(a, b):
                raise BadCache(
                    f"{where}: two kinds of {feature_label(a)}, {describe(b)} and {describe(a)}: "
                    "other parameters, weights or protocol; extract them alike"
                )


def corrupt_stage(spec: FeatureSpec) -> str:
    """Stage of the failure that records a corrupt row; a new `put` clears it."""
    return f"cache:{feature_label(spec)}"


def tested_rows(spec: FeatureSpec, table: ClipTable) -> list[int] | None:
    """Rows of the clips that a net's protocol promises it never saw; None without a promise.

    ``crossfit``: those of its fold. ``holdout``: those of the test split; none where the
    table has no splits.
    """
    if spec.protocol == "crossfit":
        return np.flatnonzero(table.folds == spec.fold).tolist()
    if spec.protocol == "holdout":
        return [] if table.splits is None else np.flatnonzero(table.splits == TEST).tolist()
    return None


def saw_its_fold(spec: FeatureSpec, table: ClipTable) -> bool:
    """Whether a net saw clips, or groups of clips, that the table tests it on.

    Also True where the table has no such clips.
    """
    inside = tested_rows(spec, table)
    if inside is None:
        return False
    seen = frozenset(spec.trained_on)
    groups = {table.groups[i] for i, c in enumerate(table.clip_ids) if c in seen}
    return not inside or any(table.clip_ids[i] in seen or table.groups[i] in groups for i in inside)


def reason_now(text: str) -> Reason:
    """A reason of this moment and this version of mvemo."""
    moment = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Reason(text, moment, code_version())


def newest_failures(sources: Sequence[Source]) -> Failures:
    """Failures of sources, oldest first, each clip and stage as the newest has it."""
    newest: Failures = {}
    for source in sources:
        newest.update(source.failures)
    return newest


def joined_history(facts: Mapping[str, Any], earlier: Sequence[Source]) -> dict[str, Any]:
    """Provenance of a run with that of earlier ones, the newest of them last in `earlier`."""
    joined = dict(facts)
    for source in reversed(earlier):
        joined = with_history(joined, source.provenance)
    return joined


def with_history(facts: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance of a run with that of an earlier one under ``history``, newest first."""
    earlier = [{k: v for k, v in before.items() if k != "history"}]
    earlier += before.get("history", [])
    current = {k: v for k, v in facts.items() if k != "history"}
    if not current:
        return dict(before)
    history: list[Any] = list(facts.get("history", []))
    known = {to_json(h) for h in (current, *history)}
    for item in earlier:
        if item and to_json(item) not in known:
            known.add(to_json(item))
            history.append(item)
    return {**current, "history": history[:HISTORY]} if history else current
