"""Search for similar songs: cosines of standardised vectors with all songs, in blocks.

Each column is standardised by its mean and deviation in the library, and each vector is divided by
its length. The search is exact. Its memory is one block of vectors, and a number per song and seed.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mvemo.fuse.scaling import Rows, fit_scaling, rows_of, unit_rows
from mvemo.manifests.array_types import F32, Bools
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.desk.vectors import joined_vector
from mvemo.pipeline.prediction.catalogue import Catalogue
from mvemo.pipeline.prediction.feature_maker import FeatureMaker
from mvemo.pipeline.prediction.new_clips import NewClip
from mvemo.pipeline.prediction.predictions import complete_features

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
    # Cosine, from -1 to 1, with the mean of the seeds; on a way, with the song before.
    similarity: float


def library_of(ids: Sequence[str], values: F32 | Rows, contents: Sequence[str] = ()) -> SongLibrary:
    """Return a library of raw vectors, (songs, dim), which are standardised."""
    scaling, _ = fit_scaling(values, np.ones(len(ids), np.bool_))
    return SongLibrary(ids, rows_of(values).map(lambda x: unit_rows(scaling.apply(x))), contents)


def embed_library(
    maker: FeatureMaker, clips: Sequence[NewClip], catalogue: Path
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
    joined = {row: joined_vector(keys, clip) for row, clip in found.items()}
    for row, (_, problem) in joined.items():
        if problem:
            tell_note(f"left out: {clips[row].file}: {problem}")
    rows = [row for row, (vector, _) in joined.items() if vector is not None]
    values = np.stack([vector for vector, _ in joined.values() if vector is not None])
    contents = [found[row].content for row in rows]
    return library_of([clips[row].file for row in rows], values, contents), rows


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

    At `n` points at equal steps on the lines from seed to seed, the nearest song follows that is
    not listed yet.
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
    contents, most = library.contents, CANDIDATES * (each + len(targets))
    while True:
        ranked = np.stack([np.argsort(-of, kind="stable")[:most] for of in scores])
        listed = [*dict.fromkeys([*seeds, *ranked.ravel().tolist()])]
        vectors = dict(zip(listed, library.vectors(listed), strict=True))
        taken, found = [*seeds], list[Match]()
        for i, (target, rows) in enumerate(zip(scores, ranked.tolist(), strict=True)):
            for row in rows:
                if len(found) == each * (i + 1) or target[row] == -np.inf:
                    break
                alike = contents and contents[row] in {contents[other] for other in taken} - {""}
                cosine = max(vectors[other] @ vectors[row] for other in taken)
                if row not in taken and not alike and cosine <= COPY:
                    taken.append(row)
                    found.append(Match(row, float(target[row])))
        if len(found) == each * len(targets) or most >= scores.shape[1]:
            return found
        most *= 8
