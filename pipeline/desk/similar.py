"""Search for similar songs: cosines of standardised vectors with all songs, in blocks.

Each column is standardised by its mean and deviation in the library, and each vector is divided by
its length. The search is exact. Its memory is one block of vectors, and a number per song and seed.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mvemo.extract.media import isolated
from mvemo.extract.store import contents
from mvemo.fuse.report import text
from mvemo.fuse.scaling import Rows, fit_scaling, rows_of, unit_rows
from mvemo.manifests import files
from mvemo.manifests.array_types import F32, Bools
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.pipeline import table_files
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.desk import playlists, tagging, vectors
from mvemo.pipeline.prediction import feature_maker, new_clips, page, request
from mvemo.pipeline.prediction.catalogue import Catalogue
from mvemo.pipeline.prediction.predictions import complete_features

# Length of the excerpts on the page in seconds, and their sampling rate in Hz.
EXCERPT, EXCERPT_RATE = 20.0, 22050
# Songs with a larger cosine are copies. Of 20 excerpts of film music as MP3, the least had 0.951;
# 99 % of 360 excerpts had less than 0.88 with the nearest other one.
COPY = 0.93
CANDIDATES = 20  # per listed song; they are compared with those already listed


class SongLibrary(NamedTuple):
    """Songs that are searched."""

    ids: Sequence[str]  # paths, or the ids of a table
    unit: Rows  # standardised vectors of length 1, float32 (songs, dim)
    contents: Sequence[str] = ()  # digest of each file's content; empty if unknown

    def vectors(self, rows: Sequence[int]) -> F32:
        """Return the vectors of some songs, float32 (rows, dim)."""
        wanted, place = np.unique(np.array(rows, np.int64), return_inverse=True)
        values = np.zeros((len(wanted), self.unit.shape[1]), np.float32)
        for at, block in self.unit.take(np.isin(np.arange(len(self.ids)), wanted)).blocks():
            values[at] = block
        return values[place]


class Match(NamedTuple):
    """Song that was found."""

    row: int  # in the library
    # Cosine, from -1 to 1, with the mean of the seeds, or on a path with the previous song.
    similarity: float


def library_of(ids: Sequence[str], values: F32 | Rows, digests: Sequence[str] = ()) -> SongLibrary:
    """Return a library of raw vectors, (songs, dim), which are standardised."""
    scaling, _ = fit_scaling(values, np.ones(len(ids), np.bool_))
    return SongLibrary(ids, rows_of(values).map(lambda x: unit_rows(scaling.apply(x))), digests)


def embed_library(
    maker: feature_maker.FeatureMaker, clips: Sequence[new_clips.NewClip], catalogue: Path
) -> tuple[SongLibrary, list[int]]:
    """Return the songs of a catalogue, and the row of each in `clips`; only new files are read.

    They are compared by the features of the predictor that is the best one for most of them.
    """
    with closing(
        Catalogue(catalogue, maker, keep_absent=True).read(dict(enumerate(clips)))
    ) as read:
        found = dict(sorted(each for batch in read for each in batch))
    best = (maker.model.best_of(complete_features(maker.model, c.vectors)) for c in found.values())
    listed = Counter(predictor.features for predictor in best if predictor is not None)
    if not listed:
        raise BadOption(f"none of {len(clips)} files could be read")
    names = listed.most_common(1)[0][0]
    keys = [(name, spec.fold) for name in names for spec in maker.model.variants(name)]
    joined = {row: vectors.joined_vector(keys, clip) for row, clip in found.items()}
    for row, (_, problem) in joined.items():
        if problem:
            tell_note(f"left out: {clips[row].file}: {problem}")
    rows = [row for row, (vector, _) in joined.items() if vector is not None]
    values = np.stack([vector for vector, _ in joined.values() if vector is not None])
    digests = [found[row].content for row in rows]
    return library_of([clips[row].file for row in rows], values, digests), rows


def similar_songs(
    library: SongLibrary, seeds: Sequence[int], n: int, excluded: Bools | None = None
) -> list[Match]:
    """Return up to `n` songs that are most similar to the mean of the seeds, best first.

    The seeds, their copies and songs that are `excluded`, bool (songs,), are left out.
    """
    mean = library.vectors(seeds).mean(axis=0, keepdims=True)
    return _nearest(library, unit_rows(mean), seeds, n, excluded)


def path_of_songs(
    library: SongLibrary, seeds: Sequence[int], n: int, excluded: Bools | None = None
) -> list[Match]:
    """Return the seeds in their order, with up to `n` songs between them in small steps.

    For each of `n` equally spaced points on the lines from seed to seed, the nearest song that is
    not listed yet is added.
    """
    corners = library.vectors(seeds)
    at = np.linspace(0, len(seeds) - 1, n + 2)[1:-1]
    before = np.minimum(at.astype(np.int64), len(seeds) - 2)
    share = (at - before)[:, None].astype(np.float32)
    points = unit_rows((1 - share) * corners[before] + share * corners[before + 1])
    found, way = _nearest(library, points, seeds, 1, excluded), [*seeds]
    # If the library has too few songs, the last points have none.
    for place, match in reversed([*zip(before.tolist(), found, strict=False)]):
        way.insert(place + 1, match.row)
    vectors = library.vectors(way)
    steps = [1.0, *(vectors[1:] * vectors[:-1]).sum(axis=1).tolist()]
    return [Match(row, step) for row, step in zip(way, steps, strict=True)]


def _nearest(
    library: SongLibrary, targets: F32, seeds: Sequence[int], each: int, excluded: Bools | None
) -> list[Match]:
    """Return up to `each` songs for each target, float32 (targets, dim): none twice, no copies."""
    scores = library.unit.scores(targets)  # (targets, songs)
    scores[:, [] if excluded is None else excluded] = -np.inf
    digests, most = library.contents, CANDIDATES * (each + len(targets))
    while True:
        ranked = np.stack([np.argsort(-of, kind="stable")[:most] for of in scores])
        listed = [*dict.fromkeys([*seeds, *ranked.ravel().tolist()])]
        vectors = dict(zip(listed, library.vectors(listed), strict=True))
        taken, found = [*seeds], list[Match]()
        for i, (target, rows) in enumerate(zip(scores, ranked.tolist(), strict=True)):
            for row in rows:
                if len(found) == each * (i + 1) or target[row] == -np.inf:
                    break
                alike = digests and digests[row] in {digests[other] for other in taken} - {""}
                cosine = max(vectors[other] @ vectors[row] for other in taken)
                if row not in taken and not alike and cosine <= COPY:
                    taken.append(row)
                    found.append(Match(row, float(target[row])))
        if len(found) == each * len(targets) or most >= scores.shape[1]:
            return found
        most *= 8


# --- files


def open_table(
    songs: Sequence[str], library: Path, options: dict[str, Any]
) -> tuple[SongLibrary, list[int]]:
    """Return the songs of a table, and the rows of the named ones."""
    for name, given in (("--model", "model_name"), ("--cache", "catalogue")):
        if options[given] is not None:
            raise BadOption(f"{name}: {library} has vectors already: leave it out")
    ids, values = vectors.read_vectors(library)
    rows = {song: row for row, song in enumerate(ids)}
    for song in songs:
        if song not in rows:
            has = f"has no song {song!r}, but {len(ids):,} others, such as {ids[0]!r}"
            raise BadOption(f"{library}: {has}: embed it together with them")
    return library_of(ids, values), [*dict.fromkeys(rows[song] for song in songs)]


def open_folder(
    songs: Sequence[str], library: Path, options: dict[str, Any]
) -> tuple[SongLibrary, list[int]]:
    """Return the songs of a folder, and the rows of the named ones."""
    named = [Path(song) if Path(song).is_file() else library / song for song in songs]
    for song, file in zip(songs, named, strict=True):
        if not file.is_file():
            raise BadOption(f"{song}: no such file, neither here nor in {library}")
    catalogue = options["catalogue"] or library / ".mvemo" / "features.h5"
    inputs = [str(library), *map(str, named)]
    asked = request.PredictRequest(inputs, options["model_name"], device=options["device"])
    clips, folder, settings = request.clips_and_settings(asked, later=True)
    catalogue.parent.mkdir(exist_ok=True)
    readable = [clip for clip in clips if not clip.problem]
    maker = feature_maker.FeatureMaker(folder, settings)
    found, read = embed_library(maker, readable, catalogue)
    rows = {contents.place_of(readable[i].path): row for row, i in enumerate(read)}
    for file in named:
        if contents.place_of(file) not in rows:
            raise BadOption(f"{file}: could not be read: give another song")
    return found, [*dict.fromkeys(rows[contents.place_of(file)] for file in named)]


def write_list(path: Path, rows: Sequence[tuple[str, str, bool]]) -> None:
    """Write a playlist or a table of songs: path, similarity, True for a seed."""
    if path.suffix.lower() in (".csv", ".parquet"):
        table: list[list[object]] = [[song, float(x)] for song, x, _ in rows]
        table_files.write_rows(path, [["path", "similarity"], *table])
        return
    clips = [tagging.song_facts(Path(song)) for song, _, _ in rows]
    playlists.write_playlist(clips, path, "xspf" if path.suffix.lower() == ".xspf" else "m3u8")


def write_page(path: Path, rows: Sequence[tuple[str, str, bool]], is_path: bool) -> None:
    """Write a page with an excerpt of each song: path, similarity, True for a seed."""
    songs = [
        tagging.song_facts(Path(song))
        | {"similarity": shown, "is_seed": is_seed, "audio": "", "problem": "no sound"}
        for song, shown, is_seed in rows
    ]
    excerpts = []
    for song in songs:
        how: dict[str, Any] = {"sample_rates": (EXCERPT_RATE,), "pictures": ()}
        # A short song, or one of unknown length, is read from its start.
        if (song["duration"] or 0.0) > EXCERPT:
            how |= {"start": (song["duration"] - EXCERPT) / 2, "duration": EXCERPT}
        excerpts.append((song["path"], how))
    for i, decoded in isolated.read_each(isolated.DECODE, excerpts):
        if isinstance(decoded, MvemoError):
            songs[i]["problem"] = str(decoded)
        elif (y := decoded.waveforms.get(EXCERPT_RATE)) is not None:
            y = y[: round(EXCERPT * EXCERPT_RATE)]
            sketch = page.Sketch(y, EXCERPT_RATE, 1.0, [], keep_sound=True)
            songs[i]["audio"] = page.sound_url(sketch)
    templates = text.page_templates(page.TEMPLATES)
    templates.filters["clock"] = page.clock  # of the parts of other pages
    values = {"songs": songs, "is_path": is_path, "seconds": EXCERPT}
    files.write_text(path, templates.get_template("similar.html").render(values))
