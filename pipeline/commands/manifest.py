"""``mvemo manifest``: scan a folder, check or import a CSV, make folds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click
import numpy as np

from mvemo.manifests import (
    LAYOUTS,
    SCHEMES,
    TASKS,
    BadManifest,
    Manifest,
    apply_scheme,
    check_manifest,
    find_scheme,
    folds_of,
    read_manifest,
    scan_clips,
    segment_manifest,
    with_inferred_groups,
    write_folds,
    write_manifest,
)
from mvemo.manifests.layouts.ravdess import CHANNELS
from mvemo.manifests.segments import TAILS

_PATH = click.Path(path_type=Path)
_scheme = click.option(
    "--scheme", type=click.Choice(list(SCHEMES)), help="Map labels to a paper's classes."
)
_drop = click.option(
    "--drop-unmapped", is_flag=True, help="Leave out clips whose label the scheme lacks."
)
_infer = click.option(
    "--infer-groups", is_flag=True, help="Group clips by names like X-k-of-n: source X."
)
_name = click.option("--name", help="Of the manifest, for reports.")
_root = click.option("--root", type=_PATH, help="Folder that the paths are relative to.")
_no_media = click.option(
    "--no-media", is_flag=True, help="Do not look whether the media files are there."
)
_force = click.option("--force", is_flag=True, help="Replace a file that is there.")


@click.group()
def manifest() -> None:
    """Lists of labelled clips: make, check, split in folds."""


@manifest.command()
@click.argument("folder", type=_PATH)
@click.option("--out", type=_PATH, help="File to write.  [default: FOLDER/manifest.csv]")
@_infer
@click.option("--layout", type=click.Choice(LAYOUTS), default="auto", show_default=True)
@click.option("--channel", type=click.Choice(CHANNELS), help="RAVDESS: only this vocal channel.")
@_scheme
@_drop
@_name
@_force
def scan(
    folder: Path,
    out: Path | None,
    infer_groups: bool,
    layout: str,
    channel: str | None,
    scheme: str | None,
    drop_unmapped: bool,
    name: str | None,
    force: bool,
) -> None:
    """Make a manifest of FOLDER, which has a folder of clips for each class."""
    out = out or folder / "manifest.csv"
    _free(out, force)
    (chosen,) = (known for known in LAYOUTS if known == layout)
    found = scan_clips(folder, infer_groups=infer_groups, name=name, layout=chosen, channel=channel)
    _note(found.notes())
    _save(_mapped(found.manifest, scheme, drop_unmapped), out)


@manifest.command()
@click.argument("file", type=_PATH)
@_root
@_infer
@_no_media
@click.option(
    "--duplicates",
    is_flag=True,
    help="Decode all clips, and tell those in different groups that are nearly the same.",
)
@click.pass_context
def check(
    context: click.Context,
    file: Path,
    root: Path | None,
    infer_groups: bool,
    no_media: bool,
    duplicates: bool,
) -> None:
    """Tell all problems of manifest FILE, with their lines; or sum it up.

    With --infer-groups, clips that are by their names pieces of one source but not in
    one group are problems too. With --duplicates, clips with the same sound or pictures in
    different groups are told, also re-encoded or cut: folds would leak. Exit code 1 if any.
    """
    if duplicates and no_media:
        raise BadManifest("--duplicates needs the media files: leave out --no-media")
    problems = check_manifest(file, root=root, media=not no_media, infer_groups=infer_groups)
    for problem in problems:
        click.echo(str(problem), err=True)
    if problems:
        n = sum(problem.count for problem in problems)
        click.echo(f"{file}: {n} problem{'s' * (n > 1)}", err=True)
        context.exit(2)
    listed = read_manifest(file, root=root, media=False)
    _summary(listed)
    if duplicates and _duplicates(listed):
        context.exit(1)


@manifest.command()
@click.argument("file", type=_PATH)
@click.option("--k", default=6, show_default=True, help="Number of folds.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--out", type=_PATH, required=True, help="CSV to write: clip_id, fold.")
@_force
def folds(file: Path, k: int, seed: int, out: Path, force: bool) -> None:
    """Divide the clips of manifest FILE into stratified folds that keep groups whole."""
    _free(out, force)
    listed = read_manifest(file, media=False)
    made = folds_of(listed, k, seed)
    _note(made.notes)
    write_folds(made, out)
    groups = np.array(listed.groups)
    for fold in range(made.k):
        there = made.test(fold)
        line = f"fold {fold}: {there.sum()} clips, {len(set(groups[there].tolist()))} groups"
        if listed.task == "multiclass":
            counts = np.bincount(listed.labels[there].astype(int), minlength=len(listed.classes))
            line += " (" + ", ".join(map(str, counts.tolist())) + ")"
        click.echo(line)
    click.echo(f"wrote {out}")


@manifest.command(name="import")
@click.argument("file", type=_PATH)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="OURS=THEIRS",
    help="FILE's own name of a column, as path=file. May be given several times.",
)
@click.option("--task", type=click.Choice(TASKS), help="Default: what FILE says, or multiclass.")
@click.option("--out", type=_PATH, required=True, help="Manifest to write.")
@_root
@_no_media
@_infer
@_scheme
@_drop
@_name
@_force
def import_(
    file: Path,
    columns: tuple[str, ...],
    task: str | None,
    out: Path,
    root: Path | None,
    no_media: bool,
    infer_groups: bool,
    scheme: str | None,
    drop_unmapped: bool,
    name: str | None,
    force: bool,
) -> None:
    """Make a manifest of the user's own CSV FILE, whose columns may have other names.

    Regression: each dimension is a column too, as --column valence=label_valence.
    """
    _free(out, force)
    mapping: dict[str, str] = {}
    for text in columns:
        ours, mark, theirs = (part.strip() for part in text.partition("="))
        if not (ours and mark and theirs):
            raise BadManifest(f"--column {text!r} is not of the form OURS=THEIRS, as path=file")
        if ours in mapping:
            raise BadManifest(f"--column {text!r}: {ours} is given twice")
        mapping[ours] = theirs
    chosen = next((known for known in TASKS if known == task), None)
    listed = read_manifest(
        file, root=root, columns=mapping, task=chosen, name=name, media=not no_media
    )
    if infer_groups:
        listed = with_inferred_groups(listed)
    _save(_mapped(listed, scheme, drop_unmapped), out)


@manifest.command()
@click.argument("file", type=_PATH)
@click.option("--seconds", type=float, default=10.0, show_default=True, help="Length of a segment.")
@click.option("--overlap", type=float, default=0.0, show_default=True, help="In seconds.")
@click.option(
    "--tail",
    type=click.Choice(TAILS),
    default="half",
    show_default=True,
    help="The rest of a clip. half: a segment if half as long as others, else left out; "
    "join: else part of the last one; drop: left out.",
)
@click.option("--first", type=float, help="Use only so many seconds of each clip.")
@click.option("--out", type=_PATH, required=True, help="Manifest to write.")
@_root
@_force
def segment(
    file: Path,
    seconds: float,
    overlap: float,
    tail: str,
    first: float | None,
    out: Path,
    root: Path | None,
    force: bool,
) -> None:
    """Cut the clips of manifest FILE to segments, which keep their clip's group.

    A segment is called CLIP@START. A clip shorter than a segment gives one, as does one
    whose file cannot be read.
    """
    _free(out, force)
    listed = read_manifest(file, root=root)
    (chosen,) = (known for known in TAILS if known == tail)
    cut = segment_manifest(
        listed,
        seconds,
        durations=_durations(listed),
        overlap=overlap,
        tail=chosen,
        first=first,
    )
    _save(cut, out)
    click.echo(f"{len(listed)} clips gave {len(cut)} segments of {seconds:g} s")


def _durations(listed: Manifest) -> dict[str, float | None]:
    """Seconds from each clip's start to its file's end; None for files that cannot be read."""
    from mvemo.extract.errors import ExtractError
    from mvemo.extract.media.probe import probe_seconds
    from mvemo.pipeline.progress import Progress

    whole: dict[str, float | None] = {}
    paths = {clip.path: listed.media_path(clip) for clip in listed.clips}
    with Progress("measure media", len(paths), "file") as bar:
        for name, path in paths.items():
            try:
                whole[name] = probe_seconds(path)
            except ExtractError as error:
                whole[name] = None
                click.echo(f"note: left whole: {error}", err=True)
            bar.step(failed=int(whole[name] is None))
    found: dict[str, float | None] = {}
    for clip in listed.clips:
        there = whole[clip.path]
        if there is not None and there <= clip.start:
            click.echo(f"note: left whole: {clip.clip_id} begins after its file's end", err=True)
            there = None
        found[clip.clip_id] = None if there is None else there - clip.start
    return found


def _duplicates(listed: Manifest) -> int:
    """Print near-duplicates in different groups; how many pairs of clips they are."""
    from mvemo.extract.duplicates.search import find_duplicates
    from mvemo.pipeline.progress import Progress

    with Progress("fingerprints", len(listed)) as bar:
        search = find_duplicates(listed, progress=lambda failed: bar.step(failed=int(failed)))
    # A set without pictures, or without sound, lacks nothing of its own.
    lacking = Counter(modality for _, modality, _ in search.problems)
    for clip_id, modality, reason in search.problems:
        if modality != "clip" and lacking[modality] == len(listed):
            continue
        what = "" if modality == "clip" else f" its {modality}"
        click.echo(f"note: {clip_id}: not compared,{what} {reason}", err=True)
    group = dict(zip(listed.clip_ids, listed.groups, strict=True))
    for pair in search.duplicates:
        if pair.modality == "audio":
            how = f"the same sound ({100 * pair.similarity:.0f} % of bits equal"
            if pair.offset:
                how += f", {abs(pair.offset):.1f} s {'later' if pair.offset > 0 else 'earlier'}"
        else:
            how = f"the same pictures ({100 * pair.similarity:.0f} % of them"
        click.echo(
            f"{pair.first} (group {group[pair.first]}) and {pair.second} "
            f"(group {group[pair.second]}): {how})",
            err=True,
        )
    pairs = len({(pair.first, pair.second) for pair in search.duplicates})
    click.echo(f"{pairs} pair{'s' * (pairs != 1)} of near-duplicates in different groups")
    return pairs


def _free(out: Path, force: bool) -> None:
    if out.exists() and not force:
        raise BadManifest(f"{out}: is there already; --force replaces it")


def _mapped(listed: Manifest, scheme: str | None, drop_unmapped: bool) -> Manifest:
    if scheme is None:
        return listed
    mapped, notes = apply_scheme(listed, find_scheme(scheme), drop_unmapped=drop_unmapped)
    _note(notes)
    return mapped


def _save(listed: Manifest, out: Path) -> None:
    write_manifest(listed, out)
    _summary(listed)
    click.echo(f"wrote {out}")


def _note(notes: tuple[str, ...]) -> None:
    for note in notes:
        click.echo(f"note: {note}", err=True)


def _summary(listed: Manifest) -> None:
    """Print what a manifest holds."""
    n_groups = len(set(listed.groups))
    click.echo(f"{listed.name}: {len(listed)} clips, {n_groups} groups, {listed.task}")
    if listed.synthetic:
        click.echo("synthetic data")
    width = max(map(len, listed.classes))
    for i, name in enumerate(listed.classes):
        if listed.task == "regression":
            values = listed.labels[:, i]
            text = f"{values.min():g} to {values.max():g}, mean {values.mean():.4g}"
        elif listed.task == "multilabel":
            text = str(int(listed.labels[:, i].sum()))
        else:
            text = str(int((listed.labels == i).sum()))
        click.echo(f"  {name:<{width}}  {text}")
    splits = Counter(clip.split for clip in listed.clips if clip.split)
    if splits:
        click.echo("splits: " + ", ".join(f"{name} {n}" for name, n in sorted(splits.items())))
        sides: dict[str, set[str | None]] = {}
        for clip in listed.clips:
            sides.setdefault(clip.group, set()).add(clip.split)
        straddling = sum(len(found) > 1 for found in sides.values())
        if straddling:
            _note((f"{straddling} group(s) are on both sides of the splits: they leak",))
    if listed.clips[0].fold is not None:
        click.echo(f"folds: {len({clip.fold for clip in listed.clips})}, prescribed")
    click.echo(f"digest {listed.digest}")
