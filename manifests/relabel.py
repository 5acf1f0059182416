"""Labels that a person corrected, read from a table."""

from dataclasses import replace
from pathlib import Path

from mvemo.manifests.errors import BadManifest, Problems, Report
from mvemo.manifests.labels import Label, label_kind
from mvemo.manifests.model import Manifest
from mvemo.manifests.tables import format_names, plain_text, read_table

CORRECTED = "corrected"


def format_label(label: Label, task: str) -> str:
    """Return a label in one cell: the class, or the tags or ratings separated by ``;``."""
    if label_kind(task).numeric:
        return ";".join(f"{float(value):.4g}" for value in label)
    return format_names([*map(str, label)], ";")


def relabel(manifest: Manifest, table: str | Path) -> tuple[Manifest, int]:
    """Return the manifest with a person's corrections, and the number of labels that changed.

    The table is a CSV with the columns ``clip_id`` and ``corrected``, as ``mvemo labels --out``
    writes it. A cell has one class, or tags or ratings separated by ``;``; ``[]`` stands for no
    tags. Rows with an empty cell change nothing. `BadManifest` names a row with an unknown clip or
    class, or with a clip that is in two rows.
    """
    path = Path(table)
    content, problems = read_table(path), Problems(path)
    header, known = content.header, {clip.clip_id for clip in manifest.clips}
    if missing := [name for name in ("clip_id", CORRECTED) if name not in header]:
        listing = ", ".join(map(repr, header))
        raise BadManifest(f"{path}: has no column {missing[0]!r}, only {listing}")
    labels: dict[str, Label] = {}
    for line, cells in content.full_rows(problems):
        row = dict(zip(header, map(plain_text, map(str.strip, cells)), strict=True))
        name = row["clip_id"]
        if not row[CORRECTED]:
            continue
        if name not in known:
            problems.add(line, f"unknown clip {name!r}: not in the manifest {manifest.name}")
        elif name in labels:
            problems.add(line, f"clip {name!r} is corrected twice")
        labels[name] = _parse(row[CORRECTED], manifest, problems.at(line))
    problems.raise_any()
    clips = tuple(replace(c, label=labels.get(c.clip_id, c.label)) for c in manifest.clips)
    changed = sum(a.label != b.label for a, b in zip(clips, manifest.clips, strict=True))
    return replace(manifest, clips=clips), changed


def _parse(cell: str, manifest: Manifest, report: Report) -> Label:
    kind, classes = label_kind(manifest.task), manifest.classes
    if not kind.numeric:
        names = kind.parse({"label": cell}, classes, report)
        return tuple(name for name in classes if name in names)
    values = cell.split(";")
    if len(values) != len(classes):
        report(f"expected {len(classes)} ratings ({'; '.join(classes)}), got {cell!r}")
        return ()
    return kind.parse(dict(zip(classes, values, strict=True)), classes, report)
