"""CAL500 (Turnbull et al. 2007) and its segments, CAL500exp (Wang et al. 2014): tags of songs.

CAL500 has, in one folder, ``songNames.txt`` and ``vocab.txt`` with one name per line, and
``hardAnnotations.txt`` with one row per song and one column of 0 and 1 per word. CAL500exp is a
folder ``SegLabelHard`` with one CSV per song, whose columns are ``Start_Time`` and ``End_Time`` in
seconds and one per tag. Both have one audio file per song, with the song's name. The formats were
taken from public programs, such as JAMS; the data sets themselves were not available.
"""

import csv
import math
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path

from mvemo.manifests.cells import to_number
from mvemo.manifests.clip_rows import Row
from mvemo.manifests.errors import BadManifest, Problems
from mvemo.manifests.layouts.file_names import FoundClips
from mvemo.manifests.tables import Table, read_lines, read_table

SONGS, WORDS, ANNOTATIONS = "songNames.txt", "vocab.txt", "hardAnnotations.txt"
SOFT_FOLDER = "seglabelsoft"
EMOTION = "Emotion-"
# Published numbers of songs (or segments) and of words (or tags).
PUBLISHED = {"cal500": ("songs", 502, 174), "cal500exp": ("segments", 3223, 67)}
N_EMOTIONS = 18


def find_annotations(folder: Path) -> tuple[Path | None, tuple[Path, ...]]:
    """Return CAL500's ``hardAnnotations.txt`` below a folder, and CAL500exp's CSV files."""
    found = sorted(folder.rglob(ANNOTATIONS))
    if len(found) > 1:
        raise BadManifest(f"{folder}: has both {found[0]} and {found[1]}: give one's folder only")
    tables = tuple(filter(_is_segment_table, sorted(folder.rglob("*.csv"))))
    return (found[0] if found else None), tables


def _is_segment_table(path: Path) -> bool:
    if SOFT_FOLDER in (part.casefold() for part in path.parts):
        return False
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            cells = next(csv.reader(file), [])
    except (OSError, csv.Error):
        return False
    return [cell.strip().casefold() for cell in cells[:2]] == ["start_time", "end_time"]


def read_songs(folder: Path, media: Sequence[str], tags: str) -> FoundClips:
    """Read CAL500, one clip per song; `tags` is ``emotion``, ``all`` or names, comma-separated."""
    annotations = find_annotations(folder)[0]
    if annotations is None:
        raise BadManifest(
            f"{folder}: has no {ANNOTATIONS}; expected it in one folder with {SONGS} and {WORDS}"
        )
    songs = read_lines(annotations.with_name(SONGS))
    words = read_lines(annotations.with_name(WORDS))
    lines = read_table(annotations).rows
    problems = Problems(annotations)
    if len(lines) != len(songs):
        problems.add(0, f"it has {len(lines)} rows, but {SONGS} has {len(songs)} songs")
    chosen = _chosen_tags(words, tags, annotations.with_name(WORDS))
    files, left_out = _files_of(songs, media, folder)
    rows = []
    for song, (line, cells) in zip(songs, lines, strict=False):
        if len(cells) != len(words):
            n_cells = f"the row has {len(cells)} cells"
            problems.add(line, f"{n_cells}, but {WORDS} has {len(words)} words")
            continue
        label = _label(cells, chosen, line, problems)
        if song in files:
            rows.append(Row(line, files[song], song, song, label))
    problems.raise_any()
    remarks = _remarks("cal500", len(songs), len(words), len(chosen), tags)
    return FoundClips(rows, list(chosen), "multilabel", left_out, remarks)


def read_segments(folder: Path, media: Sequence[str], tags: str) -> FoundClips:
    """Read CAL500exp: one clip per segment, grouped by song; see `read_songs`."""
    paths = find_annotations(folder)[1]
    if not paths:
        raise BadManifest(
            f"{folder}: has no CSV with the columns Start_Time and End_Time; expected one for "
            "each song, in a folder SegLabelHard"
        )
    by_song: dict[str, Path] = {}
    for path in paths:
        if (other := by_song.setdefault(path.stem, path)) is not path:
            raise BadManifest(f"{folder}: song {path.stem!r} has two tables, {other} and {path}")
    files, left_out = _files_of(list(by_song), media, folder)
    tables = {song: read_table(path) for song, path in by_song.items()}
    words = tables[paths[0].stem].header[2:]
    chosen = _chosen_tags(words, tags, paths[0])
    rows = []
    for song, table in tables.items():
        problems = Problems(by_song[song])
        found = table.header[2:]
        if found != words:
            different = [f"tag {tag!r} is not in {paths[0]}" for tag in found if tag not in words]
            different += [
                f"column {tag!r} of {paths[0]} is missing" for tag in words if tag not in found
            ]
            different.append(f"the order of the tags differs from that in {paths[0]}")
            problems.add(1, different[0])
            problems.raise_any()
        segments = list(_segments(table, song, files.get(song, ""), chosen, problems))
        problems.raise_any()
        rows += sorted(segments, key=lambda row: row.start) if song in files else []
    n_segments = sum(len(table.rows) - 1 for table in tables.values())
    remarks = _remarks("cal500exp", n_segments, len(words), len(chosen), tags)
    return FoundClips(rows, list(chosen), "multilabel", left_out, remarks)


def _segments(
    table: Table, song: str, path: str, chosen: dict[str, int], problems: Problems
) -> Iterator[Row]:
    for line, cells in table.full_rows(problems):
        start, stop = map(_number, cells[:2])
        if not 0 <= start < stop < math.inf:
            problems.add(
                line,
                f"segment from {cells[0]!r} to {cells[1]!r}: expected seconds, the end after the "
                "start",
            )
            continue
        label = _label(cells[2:], chosen, line, problems)
        # It is rounded to microseconds because a difference of decimals has rounding errors.
        duration = round(stop - start, 6)
        name = f"{song}@{round(start, 6):g}"
        yield Row(line, path, name, song, label, start, duration)


def _chosen_tags(words: Sequence[str], tags: str, path: Path) -> dict[str, int]:
    """Map each requested tag, in readable form, to its column."""
    _refuse_repeated(words, f"{path}: word")
    every = {_plain(word): i for i, word in enumerate(words)}
    if tags == "all":
        return every
    emotions = {
        _plain(word.removeprefix(EMOTION)): i
        for i, word in enumerate(words)
        if word.startswith(EMOTION)
    }
    if tags == "emotion":
        if not emotions:
            raise BadManifest(f"{path}: no word starts with {EMOTION!r}: give --tags all")
        return emotions
    known = {tag.casefold(): (i, tag) for tag, i in (every | emotions).items()}
    chosen = []
    for name in filter(None, map(str.strip, tags.split(","))):
        if _plain(name).casefold() not in known:
            raise BadManifest(
                f"{path}: unknown tag {name!r}; expected emotion, all, or some of "
                f"{', '.join(emotions or words)}"
            )
        chosen.append(known[_plain(name).casefold()])
    if not chosen:
        raise BadManifest(
            f"--tags {tags!r}: names no tag; expected emotion, all, or names separated by commas"
        )
    return {tag: i for i, tag in sorted(chosen)}


def _refuse_repeated(names: Sequence[str], what: str) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise BadManifest(f"{what} {name!r} occurs twice")


def _plain(word: str) -> str:
    """Return a word in readable form: ``Angry_/_Agressive`` becomes ``Angry / Agressive``."""
    return " ".join(word.replace("_", " ").split())


def _label(
    cells: Sequence[str], chosen: dict[str, int], line: int, problems: Problems
) -> tuple[str, ...]:
    """Return the chosen tags whose cell is 1."""
    label = []
    for name, i in chosen.items():
        value = _number(cells[i])
        if value not in (0.0, 1.0):
            problems.add(line, f"tag {name!r}: expected 0 or 1, got {cells[i].strip()!r}")
        elif value:
            label.append(name)
    return tuple(label)


def _files_of(
    songs: Sequence[str], media: Sequence[str], folder: Path
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Map songs to audio files with their names; return also songs and files without a match."""
    _refuse_repeated(songs, f"{folder}: song")
    stems = {posixpath.splitext(posixpath.basename(path))[0]: path for path in media}
    alike = {_letters(stem): path for stem, path in stems.items()}
    found = ((song, stems.get(song) or alike.get(_letters(song))) for song in songs)
    files = {song: path for song, path in found if path}
    if not files:
        raise BadManifest(
            f"{folder}: none of the {len(songs)} songs has an audio file below it (the first is "
            f"{songs[0]!r}): move the folder of the audio files into it"
        )
    left_out = [(song, "no audio file has this name") for song in songs if song not in files]
    used = {*files.values()}
    return files, left_out + [(p, "no song has this name") for p in media if p not in used]


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def _remarks(layout: str, n_rows: int, n_words: int, n_tags: int, asked: str) -> tuple[str, ...]:
    what, rows, words = PUBLISHED[layout]
    remarks = []
    if (n_rows, n_words) != (rows, words):
        remarks.append(
            f"the published {layout} has {rows:,} {what} and {words} tags; this copy has "
            f"{n_rows:,} and {n_words}"
        )
    if asked == "emotion" and n_tags != N_EMOTIONS:
        remarks.append(f"this copy has {n_tags} of the {N_EMOTIONS} published emotion tags")
    return tuple(remarks)


def _number(cell: str) -> float:
    try:
        return to_number(cell)
    except ValueError:
        return math.nan
