"""Text for the terminal about a manifest and its near-duplicate clips."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from mvemo.manifests import Folds, Manifest
from mvemo.manifests.labels import label_kind
from mvemo.manifests.layouts.sources import similar_groups

if TYPE_CHECKING:
    from mvemo.extract.duplicates.search import Duplicate, Search


_COMPARED = {"clip": "nothing", "video": "only sound", "audio": "only pictures"}


def summary_lines(manifest: Manifest) -> list[str]:
    """Return lines on clips, groups, labels, splits, folds and digest."""
    n_groups = len(set(manifest.groups))
    lines = [f"{manifest.name}: {len(manifest)} clips, {n_groups} groups, {manifest.task}"]
    if manifest.synthetic:
        lines.append("synthetic data")
    width = max(map(len, manifest.classes), default=0)
    counts = label_kind(manifest.task).counts(manifest.labels, manifest.classes)
    lines += [
        f"  {name:<{width}}  {count}" for name, count in zip(manifest.classes, counts, strict=True)
    ]
    splits = Counter(clip.split for clip in manifest.clips if clip.split)
    if splits:
        lines.append("splits: " + ", ".join(f"{name} {n}" for name, n in sorted(splits.items())))
    if manifest.clips[0].fold is not None:
        lines.append(f"folds: {len({clip.fold for clip in manifest.clips})}, prescribed")
    return [*lines, f"digest {manifest.digest}"]


def n_straddling_groups(manifest: Manifest) -> int:
    """Return the number of groups with clips in more than one split, through which a test leaks."""
    splits: dict[str, set[str | None]] = {}
    for clip in manifest.clips:
        splits.setdefault(clip.group, set()).add(clip.split)
    return sum(len(names) > 1 for names in splits.values())


def similar_group_lines(manifest: Manifest, most: int = 10) -> list[str]:
    """Return a line for each pair of groups that are probably one."""
    pairs = similar_groups(manifest)
    lines = [
        f"groups {first!r} and {second!r} are probably one: pieces of one song on both sides of a "
        "fold flatter the score; write them alike"
        for first, second in pairs[:most]
    ]
    return [*lines, f"{len(pairs) - most} more pairs of groups like them"][: len(pairs)]


def fold_lines(manifest: Manifest, folds: Folds) -> list[str]:
    """Return a line on clips, groups and classes of each fold."""
    groups = np.array(manifest.groups)
    kind = label_kind(manifest.task)
    lines = []
    for fold in range(folds.k):
        test = folds.test(fold)
        line = f"fold {fold}: {test.sum()} clips, {len(set(groups[test].tolist()))} groups"
        if kind.exclusive:
            line += f" ({', '.join(kind.counts(manifest.labels[test], manifest.classes))})"
        lines.append(line)
    return lines


def not_compared_lines(manifest: Manifest, search: Search) -> list[str]:
    """Return how many clips were not compared, by modality, with the reason of the first."""
    found: dict[str, list[str]] = {}
    for clip_id, modality, reason in search.problems:
        found.setdefault(modality, []).append(f"{clip_id}: {reason}")
    n = {modality: f"{len(of)} clip{'s' * (len(of) > 1)}" for modality, of in found.items()}
    # If all clips lack a modality, as songs lack pictures, no line is needed.
    return [
        f"{n[modality]}: {_COMPARED[modality]} was compared; the first, {of[0]}"
        for modality, of in found.items()
        if modality == "clip" or len(of) < len(manifest)
    ]


def duplicate_lines(manifest: Manifest, search: Search) -> list[str]:
    """Return a line for each pair of near-duplicate clips, with their groups."""
    group = dict(zip(manifest.clip_ids, manifest.groups, strict=True))
    return [
        f"{pair.first} (group {group[pair.first]}) and {pair.second} "
        f"(group {group[pair.second]}): {_likeness(pair)}"
        for pair in search.duplicates
    ]


def _likeness(pair: Duplicate) -> str:
    """Return what two clips share: pictures or sound, and how much of it."""
    percent = f"{100 * pair.similarity:.0f} %"
    if pair.modality == "video":
        return f"the same pictures ({percent} of them)"
    shift = f", {abs(pair.offset):.1f} s {'later' if pair.offset > 0 else 'earlier'}"
    return f"the same sound ({percent} of bits equal{shift if pair.offset else ''})"
