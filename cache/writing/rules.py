"""Rules for the features, failures and facts of several runs in one cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np

from mvemo.cache.errors import BadCache
from mvemo.cache.failures import Failures, Reason
from mvemo.cache.spec import FeatureSpec
from mvemo.cache.storage.files import code_version
from mvemo.cache.storage.index import feature_label
from mvemo.cache.storage.layout import to_json
from mvemo.cache.table import TEST, ClipTable
from mvemo.cache.types import Curves
from mvemo.cache.union import (
    Clash,
    PlannedFeature,
    in_order,
    plan_rows,
    refuse_rivals,
    same_family,
    union_curves,
    union_failures,
    union_provenance,
    union_table,
)
from mvemo.cache.writing.plan import FileSource, Plan, Source

# Number of earlier runs whose provenance is kept under "history".
HISTORY = 20


def resolve(
    features: Mapping[str, PlannedFeature], requested: Mapping[str, FeatureSpec]
) -> dict[str, PlannedFeature]:
    """Keep the most recent spec of each name and fold, and those compatible with it.

    Both arguments are by spec digest, the most recent last. `requested` specs take precedence, and
    displace others even if they have no rows: old values cannot replace values that failed.
    """
    specs = {d: f.spec for d, f in features.items() if d not in requested} | dict(requested)
    kept: dict[str, FeatureSpec] = {}
    for digest in reversed(specs):
        spec = specs[digest]
        if all(same_family(spec, s) for s in kept.values() if s.name == spec.name):
            kept[digest] = spec
    return in_order({d: features[d] for d in kept if d in features})


def curve_names(spec: FeatureSpec) -> set[str]:
    """Return the names of the training curves of a feature's net."""
    if spec.fold is not None:
        return {feature_label(spec)}
    return {spec.name, f"{spec.name}@all", f"{spec.name}@holdout"}


def remaining_curves(sources: Sequence[Source], features: Mapping[str, PlannedFeature]) -> Curves:
    """Return all curves except those of nets whose features were replaced."""
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


def union_plan(sources: Sequence[FileSource], where: str) -> Plan:
    """Plan one file with the content of several caches; raise BadCache if they do not match."""
    table = union_table(sources)
    try:
        features = in_order(plan_rows(table, sources, strict=True))
    except Clash as clash:
        raise BadCache(f"{where}: {clash}") from None
    of_sources = [[index.spec for index in source.indexes.values()] for source in sources]
    refuse_rivals(zip([source.name for source in sources], of_sources, strict=True), where)
    return Plan(
        table,
        list(sources),
        features,
        union_failures(sources),
        union_curves(sources),
        union_provenance(sources),
    )


def corrupt_stage(spec: FeatureSpec) -> str:
    """Return the stage of the failure that records a corrupt row; a new `put` clears it."""
    return f"cache:{feature_label(spec)}"


def tested_rows(spec: FeatureSpec, table: ClipTable) -> list[int] | None:
    """Return the rows of the clips that a net must never have seen; None without such a promise.

    For ``crossfit`` these are the clips of its fold, for ``holdout`` those of the test split (empty
    if the table has no splits).
    """
    if spec.protocol == "crossfit":
        return np.flatnonzero(table.folds == spec.fold).tolist()
    if spec.protocol == "holdout":
        return [] if table.splits is None else np.flatnonzero(table.splits == TEST).tolist()
    return None


def saw_its_fold(spec: FeatureSpec, table: ClipTable) -> bool:
    """Return True if a net saw clips, or groups of clips, that the table tests it on.

    It is also True if the table has no such clips.
    """
    inside = tested_rows(spec, table)
    if inside is None:
        return False
    seen = frozenset(spec.trained_on)
    groups = {table.groups[i] for i, c in enumerate(table.clip_ids) if c in seen}
    return not inside or any(table.clip_ids[i] in seen or table.groups[i] in groups for i in inside)


def reason_now(text: str) -> Reason:
    """Return a reason with the current time and version of mvemo."""
    moment = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Reason(text, moment, code_version())


def newest_failures(sources: Sequence[Source]) -> Failures:
    """Return the newest failure of each clip and stage; sources are oldest first."""
    newest: Failures = {}
    for source in sources:
        newest.update(source.failures)
    return newest


def joined_history(facts: Mapping[str, Any], earlier: Sequence[Source]) -> dict[str, Any]:
    """Return provenance with that of earlier runs as history; `earlier` is oldest first."""
    joined = dict(facts)
    for source in reversed(earlier):
        joined = _with_history(joined, source.provenance)
    return joined


def _with_history(facts: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return provenance with that of an earlier run under ``history``, newest first."""
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
