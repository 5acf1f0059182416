"""Commands ``mvemo embed`` and ``mvemo similar``: vectors of clips, and songs that are alike."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import argument, option

from mvemo.manifests.errors import BadOption
from mvemo.pipeline.commands import options as shared
from mvemo.pipeline.commands.predict import model_options
from mvemo.pipeline.console.messages import tell, tell_note

if TYPE_CHECKING:
    from mvemo.pipeline.desk.vectors import Row

# Suffixes of `mvemo similar --out`.
OUTPUTS = (".html", ".m3u8", ".xspf", ".csv", ".parquet")


@click.command(short_help="Write vectors of your files, or of their windows, to a table.")
@argument(
    "inputs",
    nargs=-1,
    required=True,
    metavar="FILE|FOLDER|GLOB|LIST.csv...",
    type=shared.ENTRY,
)
@shared.column_option
@model_options
@option("--nets", help="Comma-separated names from `mvemo nets`, instead of a model's features.")
@option(
    "--hop",
    type=click.FloatRange(0.05, 600),
    help="Seconds from one vector to the next.  [default: one vector per file]",
)
@option(
    "--window",
    type=click.FloatRange(0.05, 600),
    help="Seconds of which a vector is the mean.  [default: --hop]",
)
@option(
    "--out",
    type=shared.TABLE_FILE,
    required=True,
    help="Table: id, start, end, vector (.parquet, .csv).",
)
@shared.strict_option
def embed(
    inputs: tuple[str, ...],
    nets: str | None,
    hop: float | None,
    window: float | None,
    out: Path,
    strict: bool,
    **options: Any,
) -> int:
    """Write vectors of sound and video files, computed by a model's nets or by chosen nets.

    A vector joins the features of the model's best predictor. With --hop 0.5 there is a vector
    every half second, of the sound and pictures around it. Each file is decoded once, and
    memory grows neither with its length nor with the number of files.

    \b
    Examples:
      mvemo embed songs/ --out songs.parquet
      mvemo embed song.mp3 --hop 0.5 --nets musicnn --out song.parquet
    """
    if window is not None and not (hop and hop <= window):
        raise BadOption(f"--window {window:g}: expected at least the seconds of --hop, got {hop}")
    if nets is not None and options["model_name"] is not None:
        raise BadOption("--nets, --model: expected one of them, got both")
    from mvemo.pipeline import provenance
    from mvemo.pipeline.desk import vectors
    from mvemo.pipeline.prediction import request

    clips, maker = vectors.clips_and_maker(request.PredictRequest(inputs, **options), nets)
    readable = [clip for clip in clips if not clip.problem]
    failed = [(clip.file, clip.problem) for clip in clips if clip.problem]
    if maker is not None:
        dims = vectors.joined_features(maker)
        if hop is None:
            found = vectors.embed_clips(maker, readable)
        else:
            found = vectors.embed_windows(maker, readable, hop, window or hop)

        def rows() -> Iterator[Row]:
            for clip, span, vector, problem in found:
                if vector is None:
                    failed.append((clip.file, problem))
                else:
                    yield clip.file, *span, vector

        specs = {s.label: s.digest for s in maker.model.specs if (s.name, s.fold) in dims}
        how = {"model": maker.model.name, "features": specs, "hop": hop, "window": window or hop}
        facts = provenance.provenance(**how)
        vectors.write_vectors(out, rows(), sum(dims.values()), facts)
        listed = " and ".join(f"{name} ({dim})" for (name, _), dim in dims.items())
        click.echo(f"{out}: {len(clips) - len(failed)} clips, {listed}")
    for file, problem in failed:
        click.echo(f"error: {file}: {problem}", err=True)
    return 2 if len(failed) == len(clips) else int(strict and bool(failed))


@click.command(short_help="Find songs like some of yours, or a way from one to another.")
@argument("songs", nargs=-1, required=True, metavar="SONG...", type=shared.ENTRY)
@argument("library", type=shared.INPUT, metavar="FOLDER|TABLE")
@shared.model_option
@shared.device_option
@option("-n", "n", type=shared.COUNT, default=20, help="Number of songs.")
@shared.flag("--path", "Lead from the first SONG to the last, in small steps.")
@option(
    "--exclude",
    multiple=True,
    metavar="FILE|FOLDER|PATTERN",
    help="Leave out these songs. May be given several times.",
)
@option(
    "--out",
    "outputs",
    type=shared.TABLE_FILE,
    multiple=True,
    help="Write a page to listen (.html), a playlist (.m3u8, .xspf) or a table (.csv, .parquet). "
    "May be given several times.",
)
@option(
    "--cache",
    "catalogue",
    type=shared.OUT_FILE,
    help="File that keeps the songs' features.  [default: FOLDER/.mvemo/features.h5]",
)
def similar(
    songs: tuple[str, ...], library: Path, n: int, outputs: tuple[Path, ...], **options: Any
) -> None:
    """List the songs of FOLDER that are most like SONG, or like several SONGs together.

    The first call reads all files of FOLDER, later calls only new ones; mvemo serve FOLDER
    keeps the same features. TABLE is a table of mvemo embed, of up to a million songs. Copies
    of a listed song, such as the same song in another format, are left out.

    \b
    Examples:
      mvemo similar blue.mp3 songs/ --out like-blue.html
      mvemo similar blue.mp3 red.mp3 songs/ -n 50 --out mix.m3u8
      mvemo similar calm.mp3 lively.mp3 songs/ --path -n 10
      mvemo similar songs/blue.mp3 songs.parquet --exclude 'songs/Live/*'
    """
    for path in outputs:
        if path.suffix.lower() not in OUTPUTS:
            raise BadOption(f"--out {path}: expected a name that ends with {', '.join(OUTPUTS)}")
    if options["path"] and len({*songs}) < 2:
        raise BadOption("--path leads from song to song: give two different songs or more")
    import numpy as np

    from mvemo.manifests import text_table
    from mvemo.pipeline.desk import similar as songs_like

    open_library = songs_like.open_folder if library.is_dir() else songs_like.open_table
    found, seeds = open_library([*songs], library, options)
    excluded = np.array([_is_in(song, options["exclude"]) for song in found.ids])
    search = songs_like.path_of_songs if options["path"] else songs_like.similar_songs
    matches = search(found, seeds, n, excluded)
    if (n_found := len(matches) - len(seeds) * options["path"]) < n:
        tell_note(f"{library}: has only {n_found} others that are neither copies nor excluded")
    rows = [(found.ids[row], f"{x:.3f}", row in seeds) for row, x in matches]
    table = [["similarity", "song"], *([text, song] for song, text, _ in rows)]
    for line in text_table.align_columns(table, left=[1]):
        click.echo(line)
    for path in outputs:
        if path.suffix.lower() == ".html":
            first = [] if options["path"] else [(found.ids[row], "", True) for row in seeds]
            songs_like.write_page(path, [*first, *rows], options["path"])
        else:
            songs_like.write_list(path, rows)
        tell(f"written: {path}")


def _is_in(song: str, entries: Sequence[str]) -> bool:
    """Return True if a song is one of these files, in one of these folders, or fits a pattern."""
    places = (os.path.join(os.path.abspath(entry), "") for entry in entries)
    is_below = any(os.path.join(os.path.abspath(song), "").startswith(place) for place in places)
    return is_below or any(fnmatch(song, entry) for entry in entries)
