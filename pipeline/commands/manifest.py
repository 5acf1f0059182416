"""Commands ``mvemo manifest``: scan a folder, check or import a table, make folds, segments."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from click import argument, option

from mvemo import manifests
from mvemo.manifests import TASKS, annotators, labels, text_table
from mvemo.manifests.errors import BadOption
from mvemo.manifests.layouts import file_names, layout_file
from mvemo.manifests.segments import TAILS
from mvemo.manifests.splits.assignment import parts_of_groups
from mvemo.pipeline.commands import options as common
from mvemo.pipeline.commands.labels import relabel_command
from mvemo.pipeline.commands.options import typed_option
from mvemo.pipeline.console.messages import tell_note, tell_notes

if TYPE_CHECKING:
    from mvemo.extract.duplicates import Duplicate, Search

# Maximum number of pairs of similar groups that are listed.
MOST_SIMILAR = 10
# Modality that could not be compared -> words for what was compared instead.
_COMPARED = {"clip": "nothing", "video": "only sound", "audio": "only pictures"}


def _ravdess(field: str) -> click.Choice[str]:
    return click.Choice(file_names.RAVDESS.fields[field])


_scheme = typed_option(
    "--scheme", click.Choice(list(manifests.SCHEMES)), "Map labels to a paper's classes."
)
_drop = common.flag("--drop-unmapped", "Leave out clips whose label the scheme does not map.")
_infer = common.flag("--infer-groups", "Group clips that are named X-k-of-n by their source X.")
_pattern = option(
    "--group-pattern",
    metavar="PATTERN",
    default="",
    show_default=False,
    help="Group clips by a regular expression on their paths without suffix; the part in "
    "parentheses is the group, for example '(.+)_part'.",
)
_annotators = typed_option("--annotators", common.COUNT, "Annotators per clip, if no column says.")
_name = option("--name", help="Name of the manifest, for reports.")
_no_media = common.flag("--no-media", "Do not check whether the media files exist.")
_out = typed_option("--out", common.CSV_FILE, "File to write.", required=True)


@click.group(commands=[relabel_command])
def manifest() -> None:
    """Make, check and split manifests, the lists of labelled clips.

    \b
    Examples:
      mvemo manifest scan VIDEOS --infer-groups --out clips.csv
      mvemo manifest check clips.csv
    """


@manifest.command()
@argument("folder", type=common.PATH)
@typed_option("--out", common.CSV_FILE, "File to write.  [default: FOLDER/manifest.csv]")
@_infer
@_pattern
@option(
    "--layout",
    metavar="NAME|FILE.toml",
    default="auto",
    help="Layout of a published data set (`mvemo manifest layouts`), or your own.",
)
@_no_media
@typed_option(
    "--split-number",
    click.IntRange(min=0),
    "Number of the split, if the data set has several.",
    default=0,
)
@typed_option("--channel", _ravdess("channel"), "RAVDESS: only this vocal channel.")
@typed_option(
    "--modality",
    _ravdess("modality"),
    "RAVDESS: only copies with this modality.  [default: one copy of each take, with pictures "
    "if possible]",
)
@typed_option("--intensity", _ravdess("intensity"), "RAVDESS: only this intensity.")
@option("--tags", help="CAL500: emotion, all, or comma-separated names.  [default: emotion]")
@_scheme
@_drop
@_annotators
@_name
@common.flag("--no-labels", "List all media files, without labels.")
@common.flag("--follow-links", "Also follow links that lead out of FOLDER.")
@common.force_option
def scan(folder: Path, out: Path | None, force: bool, **options: Any) -> None:
    """Make a manifest of FOLDER, which has a folder of clips for each class.

    FOLDER may also hold a published data set: RAVDESS, CAL500, CAL500exp and 4Q are
    recognised, others are named by --layout. A TOML file declares the layout of any other set;
    see docs/public-data.md.

    \b
    Examples:
      mvemo manifest scan VIDEOS --infer-groups --out clips.csv
      mvemo manifest scan DEAM --layout deam --out deam.csv
      mvemo manifest scan SET --layout mine.toml --no-media --out mine.csv
    """
    out = out or folder / "manifest.csv"
    common.refuse_replacing(out, force)
    named = ("channel", "modality", "intensity", "tags", "split_number")
    same = ("infer_groups", "name", "layout", "follow_links")
    scanned = manifests.scan_clips(
        folder,
        select=manifests.Selection(**{name: options[name] for name in named}),
        labels=not options["no_labels"],
        media=not options["no_media"],
        **{name: options[name] for name in same},
    )
    tell_notes(scanned.notes())
    clips = scanned.manifest
    if options["group_pattern"]:
        clips = manifests.with_inferred_groups(clips, options["group_pattern"])
    if not options["no_media"] and any(clip.duration is not None for clip in clips.clips):
        from mvemo.pipeline.clips.media_files import fit_segments

        clips, notes = fit_segments(clips)
        tell_notes(notes)
    _save(clips, out, options)


@manifest.command(name="layouts")
def list_layouts() -> None:
    """List the layouts of published data sets, with their size, task and licence.

    \b
    Example:
      mvemo manifest layouts
    """
    rows, problems = [("layout", "task", "clips", "licence")], list[str]()
    found = layout_file.layouts(problems.append).values()
    rows += [(one.name, one.task, one.size, one.licence) for one in found]
    rows += [
        ("class-folders", "multiclass", "a folder for each class", ""),
        ("ravdess", "multiclass", "RAVDESS: 1,012 sung, 1,440 spoken takes", "CC BY-NC-SA 4.0"),
    ]
    click.echo("\n".join(text_table.align_columns(rows, left=range(4))))
    for problem in problems:
        tell_note(problem)


@manifest.command()
@argument("file", type=common.PATH)
@common.column_option
@common.root_option
@_infer
@_no_media
@common.flag(
    "--duplicates",
    "Decode all clips, and list those in different groups that are nearly the same.",
)
def check(file: Path, no_media: bool, duplicates: bool, **options: Any) -> None:
    """List all problems of manifest FILE, with their lines; or summarise it.

    Groups whose names differ by case, spaces or one letter are reported as probably the same.
    With --infer-groups, clips whose names say that they are pieces of one source must be in
    one group. With --duplicates, clips in different groups with the same sound or pictures
    are listed, even if re-encoded or cut to two fifths, because folds would leak. The exit
    code is 1 if there are any.

    \b
    Example:
      mvemo manifest check clips.csv --duplicates
    """
    if duplicates and no_media:
        raise BadOption("--duplicates needs the media files: leave out --no-media")
    problems = manifests.check_manifest(file, media=not no_media, **options)
    lines = [str(problem) for problem in problems]
    if problems:
        n_problems = sum(problem.count for problem in problems)
        lines.append(f"{file}: {n_problems} problem{'s' * (n_problems > 1)}")
    else:
        del options["infer_groups"]
        clips = manifests.read_manifest(file, media=False, **options)
        if not no_media and any(clip.start > 0 for clip in clips.clips):
            from mvemo.pipeline.clips.media_files import starts_past_end

            lines += [f"{file}: {line}" for line in starts_past_end(clips)]
    if lines:
        click.echo("\n".join(lines), err=True)
        raise click.exceptions.Exit(2)
    _summarise(clips)
    similar = file_names.similar_groups(clips)
    for first, second in similar[:MOST_SIMILAR]:
        tell_note(
            f"groups {first!r} and {second!r} are probably the same: pieces of one song in "
            "training and test make scores too high; give both the same name"
        )
    if len(similar) > MOST_SIMILAR:
        tell_note(f"{len(similar) - MOST_SIMILAR} more such pairs of groups")
    if duplicates and _print_duplicates(clips):
        raise click.exceptions.Exit(1)


@manifest.command()
@argument("file", type=common.PATH)
@typed_option("--folds k", int, "Number of folds.", default=6)
@common.seed_option("Seed of the assignment.  [default: 0]")
@typed_option("--out", common.CSV_FILE, "CSV to write: clip_id, fold.", required=True)
@typed_option(
    "--keep",
    common.PATH,
    "Fold file of earlier clips; clips that are still in FILE keep their folds.",
)
@common.root_option
@common.force_option
def folds(file: Path, k: int, seed: int | None, out: Path, **options: Any) -> None:
    """Assign the clips of manifest FILE to stratified folds that keep groups whole.

    `mvemo extract`, `mvemo fuse`, `mvemo-cv` and `mvemo study` take the file as --folds.

    \b
    Examples:
      mvemo manifest folds clips.csv --folds 6 --out folds.csv
      mvemo extract clips.csv --folds folds.csv
    """
    common.refuse_replacing(out, options["force"])
    clips = manifests.read_manifest(file, root=options["root"], media=False)
    if seed is not None and any(clip.fold is not None for clip in clips.clips):
        tell_note(f"--seed {seed} changes nothing: {file} prescribes the folds")
    seed, keep = seed or 0, options["keep"]
    earlier = None if keep is None else manifests.read_folds(keep)
    if earlier is not None and (earlier.k, max(earlier.seed, 0)) != (k, seed):
        raise BadOption(
            f"--keep {keep}: has {earlier.k} folds of seed {earlier.seed}: use the same, with "
            f"--folds {earlier.k} --seed {max(earlier.seed, 0)}, or leave out --keep"
        )
    divided = manifests.folds_of(clips, k, seed, earlier=earlier and replace(earlier, seed=seed))
    tell_notes(divided.notes)
    manifests.write_folds(divided, out)
    groups, kind = np.array(clips.groups), labels.label_kind(clips.task)
    for fold in range(k):
        test = divided.test(fold)
        line = f"fold {fold}: {test.sum()} clips, {len(set(groups[test].tolist()))} groups"
        if kind.exclusive:
            line += f" ({', '.join(kind.counts(clips.labels[test], clips.classes))})"
        click.echo(line)
    click.echo(f"wrote {out}")


@manifest.command(name="import")
@argument("file", type=common.PATH)
@common.column_option
@typed_option(
    "--task",
    click.Choice((*TASKS, labels.UNLABELLED)),
    "Kind of labels.  [default: as FILE says, otherwise recognised]",
)
@option("--separator", metavar="MARK", help="Separator of the tags in a cell.  [default: detected]")
@common.flag("--skip-unlabelled", "Leave out rows without a label.")
@common.scale_option
@_out
@common.root_option
@_no_media
@_infer
@_pattern
@_scheme
@_drop
@_annotators
@_name
@common.force_option
def import_(file: Path, out: Path, force: bool, **options: Any) -> None:
    """Make a manifest of your own table FILE (CSV, Parquet, Excel).

    Paths, groups, splits, and classes, tags or ratings are recognised by the names and cells
    of their columns; notes say which were taken, and --column and --task override this. With
    --no-media a column clip_id is enough.

    \b
    Example:
      mvemo manifest import songs.csv --column path=file --column label=mood \\
          --out clips.csv
    """
    common.refuse_replacing(out, force)
    same = ("root", "columns", "task", "name", "separator", "skip_unlabelled")
    clips = manifests.read_manifest(
        file,
        scale=options["scale"] or None,
        media=not options["no_media"],
        **{name: options[name] for name in same},
    )
    if options["infer_groups"] or options["group_pattern"]:
        clips = manifests.with_inferred_groups(clips, options["group_pattern"])
    _save(clips, out, options)


@manifest.command()
@argument("file", type=common.PATH)
@typed_option("--seconds", float, "Length of a segment.", default=10.0)
@typed_option("--overlap", float, "Overlap of segments in seconds.", default=0.0)
@typed_option(
    "--tail",
    click.Choice(TAILS),
    "Rest of a clip: a segment if at least half as long as the others, otherwise left out "
    "(half) or joined to the last segment (join); with drop, always left out.",
    default="half",
)
@typed_option("--first", float, "Number of seconds to use of each clip.  [default: all]")
@_out
@common.root_option
@common.force_option
def segment(
    file: Path, seconds: float, out: Path, root: Path | None, force: bool, **options: Any
) -> None:
    """Split the clips of manifest FILE into segments, which keep their clip's group.

    A segment is called CLIP@START. A clip shorter than a segment is one segment. A clip
    whose file is missing or cannot be read stays whole and is listed.

    \b
    Example:
      mvemo manifest segment clips.csv --seconds 10 --out segments.csv
    """
    from mvemo.pipeline.clips.media_files import clip_lengths, missing_media

    common.refuse_replacing(out, force)
    clips = manifests.read_manifest(file, root=root, media=False)
    missing_media(clips, file)
    durations = clip_lengths(clips, lambda problem: tell_note(f"not split: {problem}"))
    segments = manifests.segment_manifest(clips, seconds, durations=durations, **options)
    _save(segments, out, {"scheme": None})
    click.echo(f"{len(clips)} clips were split into {len(segments)} segments of {seconds:g} s")


def _print_duplicates(clips: manifests.Manifest) -> int:
    """Print near-duplicates in different groups, and return the number of pairs of clips."""
    from mvemo.extract.duplicates import find_duplicates
    from mvemo.pipeline.console.progress import Progress

    with Progress("fingerprints", len(clips)) as bar:
        search = find_duplicates(clips, progress=lambda failed: bar.step(failed=int(failed)))
    tell_notes(not_compared_lines(clips, search))
    group = dict(zip(clips.clip_ids, clips.groups, strict=True))
    for pair in search.duplicates:
        both = " and ".join(f"{clip} (group {group[clip]})" for clip in (pair.first, pair.second))
        click.echo(f"{both}: {_likeness(pair)}", err=True)
    n_pairs = len({(pair.first, pair.second) for pair in search.duplicates})
    click.echo(f"{n_pairs} pair{'s' * (n_pairs != 1)} of near-duplicates in different groups")
    return n_pairs


def _save(clips: manifests.Manifest, out: Path, options: dict[str, Any]) -> None:
    """Write a manifest, with its labels mapped to a paper's classes if requested."""
    if options["scheme"] is not None:
        scheme = manifests.find_scheme(options["scheme"])
        clips, notes = manifests.apply_scheme(clips, scheme, drop_unmapped=options["drop_unmapped"])
        tell_notes(notes)
    if options.get("annotators"):
        clips = annotators.with_annotators(clips, options["annotators"])
    manifests.write_manifest(clips, out)
    _summarise(clips)
    click.echo(f"wrote {out}")


def _summarise(clips: manifests.Manifest) -> None:
    """Print clips, groups, labels, splits, folds and digest."""
    tell_notes(clips.notes)
    click.echo(f"{clips.name}: {len(clips)} clips, {len(set(clips.groups))} groups, {clips.task}")
    if clips.synthetic:
        click.echo("synthetic data")
    width = max(map(len, clips.classes), default=0)
    counts = labels.label_kind(clips.task).counts(clips.labels, clips.classes)
    for name, count in zip(clips.classes, counts, strict=True):
        click.echo(f"  {name:<{width}}  {count}")
    splits = Counter(clip.split for clip in clips.clips if clip.split)
    if splits:
        click.echo("splits: " + ", ".join(f"{name} {n}" for name, n in sorted(splits.items())))
    if clips.clips[0].fold is not None:
        click.echo(f"folds: {len({clip.fold for clip in clips.clips})}, prescribed")
    if (disagreement := annotators.disagreement_of(clips)) is not None:
        for limit in annotators.ceilings_of(clips.task, clips.classes, clips.labels, disagreement):
            click.echo(limit.sentence())
    click.echo(f"digest {clips.digest}")
    placed = parts_of_groups((clip.group, clip.split) for clip in clips.clips)
    if n_straddling := sum(len(splits) > 1 for splits in placed.values()):
        tell_note(f"{n_straddling} group(s) are in several splits: their clips leak")


def not_compared_lines(manifest: manifests.Manifest, search: Search) -> list[str]:
    """Return a line for each modality that some clips could not be compared in."""
    found = defaultdict[str, list[str]](list)
    for clip_id, modality, reason in search.problems:
        found[modality].append(f"{clip_id}: {reason}")
    # If all clips lack a modality (songs have no pictures), no line is needed.
    return [
        f"{len(of)} clip{'s' * (len(of) > 1)}: {_COMPARED[modality]} was compared; the first, "
        f"{of[0]}"
        for modality, of in found.items()
        if modality == "clip" or len(of) < len(manifest)
    ]


def _likeness(pair: Duplicate) -> str:
    percent = f"{100 * pair.similarity:.0f} %"
    if pair.modality == "video":
        return f"the same pictures ({percent} of them)"
    shift = f", {abs(pair.offset):.1f} s {'later' if pair.offset > 0 else 'earlier'}"
    return f"the same sound ({percent} of bits equal{shift if pair.offset else ''})"
