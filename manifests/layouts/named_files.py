"""Data sets whose file names state the facts of a clip; each is one TOML file in this folder.

A file name consists of two-digit numbers, one for each field (see ``ravdess.toml``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

from mvemo.manifests.clip_rows import Row
from mvemo.manifests.files import parse_toml
from mvemo.manifests.labels import Names, Task


@dataclass
class FoundClips:
    """Clips that a layout finds in a folder."""

    rows: list[Row]
    classes: Names
    task: Task = "multiclass"
    # (name, reason) of files that are not clips, and of songs without a file.
    left_out: list[tuple[str, str]] = field(default_factory=list)
    remarks: tuple[str, ...] = ()  # differences from the published data set


@dataclass(frozen=True)
class NamedFiles:
    """Layout of a data set by its file names; fields are those of its TOML file."""

    name: str
    title: str
    fields: Mapping[str, Sequence[str]]  # values by field, in the order of their numbers
    label: str
    group: str
    copies: str
    preferred: Sequence[str]
    extra: Sequence[str]
    select: Mapping[str, str]

    def parse(self, stem: str) -> dict[str, str] | None:
        """Return the facts in a file name without suffix; None for another data set's name."""
        parts = stem.split("-")
        if len(parts) != len(self.fields) or not all(p.isdecimal() and len(p) == 2 for p in parts):
            return None
        facts = {}
        for number, (key, values) in zip(map(int, parts), self.fields.items(), strict=True):
            if not 1 <= number <= len(values):
                return None
            facts[key] = values[number - 1]
        return facts

    def find(self, stems: Mapping[str, str], selected: Mapping[str, str | None]) -> FoundClips:
        """Return the clips with selected values, one copy of each take.

        `stems` maps paths to file names without suffix. Without a selected kind of copy, the first
        of `preferred` that exists is kept.
        """
        names: dict[str, dict[str, str]] = {}
        left_out: list[tuple[str, str]] = []
        others = [key for key in self.select if key != self.copies]
        for path, stem in stems.items():
            facts = self.parse(stem)
            if facts is None:
                left_out.append((path, f"not named as {self.title} names its files"))
                continue
            other = [key for key in others if selected.get(key) not in (None, facts[key])]
            if other:
                key = other[0]
                left_out.append((path, f"{self.select[key]} is not {selected[key]}"))
            else:
                names[path] = facts
        kind = selected.get(self.copies)
        best: dict[tuple[str, ...], str] = {}
        for path in sorted(names, key=lambda path: self.preferred.index(names[path][self.copies])):
            if kind in (None, names[path][self.copies]):
                best.setdefault(self._take(names[path]), path)
        rows: list[Row] = []
        for path, facts in names.items():
            if best.get(self._take(facts)) == path:
                group = f"{self.group}-{facts[self.group]}"
                extra = tuple((key, facts[key]) for key in self.extra)
                rows.append(Row(len(rows) + 1, path, (facts[self.label],), "", group, extra=extra))
            elif kind not in (None, facts[self.copies]):
                left_out.append((path, f"{self.select[self.copies]} is not {kind}"))
            else:
                left_out.append((path, "another copy of the same take is there"))
        used = {row.label[0] for row in rows}
        classes = [value for value in self.fields[self.label] if value in used]
        return FoundClips(rows, classes, left_out=left_out)

    def _take(self, facts: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(value for key, value in facts.items() if key != self.copies)


def _read_layouts() -> dict[str, NamedFiles]:
    layouts = {}
    for file in resources.files(__package__).iterdir():
        if file.name.endswith(".toml"):
            stated = parse_toml(file.read_text(encoding="utf-8"))
            fields = {
                key: [f"{i:02d}" for i in range(1, values + 1)]
                if isinstance(values, int)
                else values
                for key, values in stated.pop("fields").items()
            }
            layout = NamedFiles(fields=fields, **stated.pop("clips"), **stated)
            layouts[layout.name] = layout
    return dict(sorted(layouts.items()))


NAMED_FILES = _read_layouts()
