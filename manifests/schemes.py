"""Other labels for the clips of a manifest: classes of a scheme, and a person's corrections.

A scheme maps the words of a data set's labels to a paper's classes.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mvemo.manifests import tables, text_files
from mvemo.manifests.errors import BadManifest, Problems, Report
from mvemo.manifests.labels import Label, label_kind
from mvemo.manifests.model import Manifest

# Column of a table with corrected labels.
CORRECTED = "corrected"


@dataclass(frozen=True)
class Scheme:
    """Classes in fixed order, and the labels that belong to each class."""

    name: str  # on the command line
    classes: tuple[str, ...]  # in the order of the paper
    words: Mapping[str, str]  # word (lower case, parts separated by one blank) -> class
    doubtful: Mapping[str, str] = field(default_factory=dict)  # word -> note for users

    def doubt(self, label: str) -> str:
        """Return the note about a label's class, or an empty text."""
        return self.doubtful.get(_normalise(label), "")

    def class_of(self, label: str) -> str | None:
        """Return the class of a label, or None; case, ``_``, ``-`` and brackets are ignored."""
        return self.words.get(_normalise(label))


def _normalise(label: str) -> str:
    return " ".join(label.casefold().translate(str.maketrans("_-()", "    ")).split())


_TABLES = text_files.read_toml(Path(__file__).with_name("schemes.toml"))
_DOUBTFUL = _TABLES.pop("doubtful")
SCHEMES: dict[str, Scheme] = {
    name: Scheme(
        name,
        classes=tuple(members),
        words={_normalise(word): c for c, listed in members.items() for word in (c, *listed)},
        doubtful=_DOUBTFUL.get(name, {}),
    )
    for name, members in _TABLES.items()
}


def find_scheme(name: str) -> Scheme:
    """Return the scheme with this name; raise `BadManifest`, which lists all, for an unknown name.

    Examples
    --------
    >>> find_scheme("pl20").class_of("little sad")
    'Neutral'
    """
    if name not in SCHEMES:
        raise BadManifest(f"unknown scheme {name!r}; expected one of {', '.join(SCHEMES)}")
    return SCHEMES[name]


def apply_scheme(
    manifest: Manifest, scheme: Scheme, *, drop_unmapped: bool = False
) -> tuple[Manifest, tuple[str, ...]]:
    """Replace the labels of a multiclass or multilabel manifest with the scheme's classes.

    Parameters
    ----------
    manifest, scheme
        Manifest, and scheme to apply.
    drop_unmapped
        If True, leave out clips (multilabel: tags) whose label is not in the scheme, instead of
        raising an error.

    Returns
    -------
    The manifest with the scheme's classes that occur, in the scheme's order; and notes on dropped
    labels and absent classes.

    Raises
    ------
    BadManifest
        Labels are not in the scheme (the message lists them), no clip remains, or the task is
        regression.

    Examples
    --------
    >>> from pathlib import Path
    >>> from mvemo.manifests import Clip
    >>> clips = (Clip("a", "a.mp4", ("Happy",), "a"), Clip("b", "b.mp4", ("Rage",), "b"))
    >>> manifest = Manifest("own words", "multiclass", ("Happy", "Rage"), clips, Path())
    >>> apply_scheme(manifest, find_scheme("pl20"))[0].classes
    ('Exciting', 'Tension')
    """
    kind = label_kind(manifest.task)
    if kind.numeric:
        raise BadManifest(f"{manifest.name}: scheme {scheme.name} is for class names, not numbers")
    counts = Counter(str(label) for clip in manifest.clips for label in clip.label)
    class_of = {label: scheme.class_of(label) for label in counts}
    used = {*class_of.values()}
    listed = ", ".join(
        f"{name!r} ({n})" for name, n in sorted(counts.items()) if not class_of[name]
    )
    if listed and not drop_unmapped:
        raise BadManifest(
            f"{manifest.name}: scheme {scheme.name} has no class for {listed}; "
            f"its classes are {', '.join(scheme.classes)}"
        )
    if not used - {None}:
        raise BadManifest(f"{manifest.name}: scheme {scheme.name} has no class for any label")
    clips = []
    for clip in manifest.clips:
        names = {class_of[str(label)] for label in clip.label}
        label = tuple(name for name in scheme.classes if name in names)
        if label or not kind.exclusive:
            clips.append(replace(clip, label=label))
    notes = [
        f"{name!r} ({n} clips): {doubt}"
        for name, n in sorted(counts.items())
        if (doubt := scheme.doubt(name))
    ]
    if listed:
        notes.append(f"labels dropped because scheme {scheme.name} has no class for them: {listed}")
    if absent := [name for name in scheme.classes if name not in used]:
        notes.append(f"scheme {scheme.name}: no clip is in class {', '.join(absent)}")
    classes = tuple(name for name in scheme.classes if name in used)
    return replace(manifest, classes=classes, clips=tuple(clips)), tuple(notes)


def format_label(label: Label, task: str) -> str:
    """Return a label in one cell: the class, or the tags or ratings separated by ``;``."""
    if label_kind(task).numeric:
        return ";".join(f"{float(value):.4g}" for value in label)
    return tables.format_names([*map(str, label)], ";")


def relabel(manifest: Manifest, table: str | Path) -> tuple[Manifest, int]:
    """Return the manifest with a person's corrections, and the number of labels that changed.

    The table is a CSV with the columns ``clip_id`` and ``corrected``, as ``mvemo labels --out``
    writes it. A cell has one class, or tags or ratings separated by ``;``; ``[]`` stands for no
    tags. Rows with an empty cell change nothing. `BadManifest` names a row with an unknown clip or
    class, or with a clip that is in two rows.
    """
    path = Path(table)
    content, problems = tables.read_table(path), Problems(path)
    header, known = content.header, {clip.clip_id for clip in manifest.clips}
    if missing := [name for name in ("clip_id", CORRECTED) if name not in header]:
        listing = ", ".join(map(repr, header))
        raise BadManifest(f"{path}: has no column {missing[0]!r}, only {listing}")
    labels: dict[str, Label] = {}
    for line, cells in content.full_rows(problems):
        row = dict(zip(header, map(tables.plain_text, map(str.strip, cells)), strict=True))
        name = row["clip_id"]
        if not row[CORRECTED]:
            continue
        if name not in known:
            problems.add(line, f"unknown clip {name!r}: not in the manifest {manifest.name}")
        elif name in labels:
            problems.add(line, f"clip {name!r} is corrected twice")
        labels[name] = _corrected(row[CORRECTED], manifest, problems.at(line))
    problems.raise_any()
    clips = tuple(replace(c, label=labels.get(c.clip_id, c.label)) for c in manifest.clips)
    changed = sum(a.label != b.label for a, b in zip(clips, manifest.clips, strict=True))
    return replace(manifest, clips=clips), changed


def _corrected(cell: str, manifest: Manifest, report: Report) -> Label:
    kind, classes = label_kind(manifest.task), manifest.classes
    if not kind.numeric:
        names = kind.parse({"label": cell}, classes, report)
        return tuple(name for name in classes if name in names)
    values = cell.split(";")
    if len(values) != len(classes):
        report(f"expected {len(classes)} ratings ({'; '.join(classes)}), got {cell!r}")
        return ()
    return kind.parse(dict(zip(classes, values, strict=True)), classes, report)
