"""Commands ``mvemo cache``: show, check, repair, merge, export and import feature caches."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click import argument, option

from mvemo import cache as caches
from mvemo.cache import import_arrays, maintenance
from mvemo.manifests import ManifestOptions, read_manifest, tables, text_table
from mvemo.manifests.errors import BadOption
from mvemo.manifests.files import dump_json
from mvemo.pipeline.commands import cache_text
from mvemo.pipeline.commands import options as common
from mvemo.pipeline.commands.options import typed_option
from mvemo.pipeline.console.messages import tell_note, tell_notes
from mvemo.pipeline.provenance import provenance as facts_of

_features = argument("features", type=common.PATH)


@click.group()
def cache() -> None:
    """Show, check, repair, merge, export and import feature caches.

    Commands that only read FEATURES also take a folder of shards (*.h5) as one cache.

    \b
    Example:
      mvemo cache info features.h5
    """


@cache.command()
@_features
@common.flag("--provenance", "Also print the whole provenance, as JSON.")
@common.flag("--failures", "Also print each failure, with time and version.")
def info(features: Path, provenance: bool, failures: bool) -> None:
    """Print the clips, features, failures and origin of FEATURES.

    \b
    Example:
      mvemo cache info work/features.h5
    """
    with caches.open_cache(features) as cache:
        click.echo("\n".join(cache_text.cache_lines(cache)))
        if failures:
            click.echo("\n".join(cache_text.failure_table(cache)))
        if provenance:
            click.echo(dump_json(cache.provenance), nl=False)


@cache.command()
@_features
@typed_option(
    "--time-limit",
    click.FloatRange(min=0, min_open=True),
    "Check in a separate process with this time limit, for files of unknown origin.",
    metavar="SECONDS",
)
def verify(features: Path, time_limit: float | None) -> None:
    """Check every value of FEATURES; print one line per problem. Exit code 1 if there are any.

    \b
    Example:
      mvemo cache verify features.h5
    """
    if time_limit is None:
        problems = caches.verify_cache(features)
    else:
        problems = caches.verify_untrusted(features, seconds=time_limit)
    for problem in problems:
        # If the file is not a cache, the problem already starts with its path.
        click.echo(f"{features}: {problem.removeprefix(f'{features}: ')}", err=True)
    if problems:
        raise click.exceptions.Exit(1)
    click.echo(f"{features}: no problems")


@cache.command()
@_features
def repair(features: Path) -> None:
    """Drop corrupt values of FEATURES, and add the rows of an unfinished run.

    Dropped values are missing afterwards; run the extraction again to recompute them.

    \b
    Example:
      mvemo cache repair features.h5
    """
    repairs = maintenance.repair_cache(features)
    state = "repaired" if repairs else "nothing to repair"
    click.echo("\n".join([*repairs, f"{features}: {state}"]))


@cache.command()
@argument("features", nargs=-1, required=True, type=common.PATH)
@typed_option("--out", common.OUT_FILE, "File to write.", required=True)
@common.force_option
def merge(features: tuple[Path, ...], out: Path, force: bool) -> None:
    """Merge several caches FEATURES, made from the same manifest, into one cache.

    A folder stands for all its shards (*.h5).

    \b
    Examples:
      mvemo cache merge half1.h5 half2.h5 --out features.h5
      mvemo cache merge features.h5.shards --out features.h5
    """
    from mvemo.pipeline.stage_one.shards import refuse_unfinished

    common.refuse_replacing(out, force)
    for path in features:
        refuse_unfinished(path)
    maintenance.merge_caches(features, out)
    with caches.open_cache(out) as merged:
        click.echo("\n".join(cache_text.cache_lines(merged)))


@cache.command()
@_features
@option(
    "--feature",
    "names",
    multiple=True,
    required=True,
    help="Name of the feature. May be given several times.",
)
@typed_option("--fold", click.IntRange(min=0), "Fold of the net, for crossfitted features.")
@typed_option(
    "--out", common.OUT_FILE, "File to write: .npz, .csv, .parquet or .h5.", required=True
)
@common.force_option
def export(
    features: Path, names: tuple[str, ...], fold: int | None, out: Path, force: bool
) -> None:
    """Write one feature of FEATURES with its clip ids, for other programs.

    With --out FILE.h5, write several features with all their folds, as a smaller cache.

    \b
    Examples:
      mvemo cache export features.h5 --feature mel --out mel.npz
      mvemo cache export features.h5 --feature lld --feature i3d --out slim.h5
    """
    common.refuse_replacing(out, force)
    if out.suffix.lower() == ".h5":
        if fold is not None:
            raise BadOption("--fold: cannot be used with --out FILE.h5, which holds all folds")
        if out.resolve() == features.resolve():
            raise BadOption(
                f"--out {out}: must differ from FEATURES; to drop features there, use 'mvemo cache "
                "remove'"
            )
        caches.select_features(features, names, out)
    elif len(names) > 1:
        raise BadOption(f"--out {out}: expected one feature: give a .h5 file for several")
    else:
        caches.export_cache(features, names[0], out, fold=fold)
    click.echo(f"{', '.join(names)}: {out}")


@cache.command()
@_features
@argument("names", nargs=-1, required=True, metavar="FEATURE...")
def remove(features: Path, names: tuple[str, ...]) -> None:
    """Remove each FEATURE, with its training curves and failures, from the file FEATURES.

    \b
    Example:
      mvemo cache remove features.h5 vggish
    """
    _tell_removed(features, maintenance.remove_features(features, names))


@cache.command()
@_features
@typed_option("--manifest", common.PATH, "Remove clips that this manifest does not list.")
@common.flag(
    "--unused",
    "Remove features that the last extraction's settings do not name; imported features stay.",
)
@common.flag("--dry-run", "Print what would be removed, and change nothing.")
def gc(features: Path, manifest: Path | None, unused: bool, dry_run: bool) -> None:
    """Remove rows of FEATURES that are no longer used, and curves without a feature.

    \b
    Example:
      mvemo cache gc features.h5 --unused --dry-run
    """
    with caches.open_cache(features) as cache:
        names = set(cache.names())
        if unused:
            extracted = {spec.name for spec in cache.specs if spec.protocol != "imported"}
            names -= extracted - _named_by_settings(features, cache.provenance)
    clips = None if manifest is None else read_manifest(manifest, media=False).clip_ids
    removed = maintenance.select_features(features, names, features, clips=clips, dry_run=dry_run)
    _tell_removed(features, removed, dry_run)


def _named_by_settings(features: Path, facts: dict[str, Any]) -> set[str]:
    """Return the names of the nets and descriptors in the last extraction's settings."""
    for run in (facts, *facts.get("history", [])):
        with suppress(AttributeError, KeyError, TypeError):
            stated = run["settings"]["extract"]
            return {str(name) for name in (*stated["nets"], *stated.get("descriptors", []))}
    raise BadOption(
        f"--unused needs the settings of the run, but {features} has none: leave it out"
    )


def _tell_removed(features: Path, removed: maintenance.Removed, dry_run: bool = False) -> None:
    for what in ("features", "clips", "curves"):
        names = getattr(removed, what)
        if names:
            kind = what if len(names) > 1 else what[:-1]
            more = ", …" if len(names) > 5 else ""
            click.echo(f"{len(names)} {kind}: {', '.join(names[:5])}{more}")
    if not removed:
        click.echo(f"{features}: nothing to remove")
    elif dry_run:
        click.echo(f"{features}: not changed; run without --dry-run to remove this")
    else:
        click.echo(f"{features}: is now {removed.freed / 1e6:.1f} MB smaller")


@cache.command(name="clean-work")
@argument("work", type=common.FOLDER)
@common.flag("--nets", "Also remove the trained nets; a later run trains them again.")
@common.flag("--dry-run", "Print what would be removed, and change nothing.")
def clean_work_(work: Path, nets: bool, dry_run: bool) -> None:
    """Remove the decoded media in WORK, the working folder of `mvemo extract`.

    A later run decodes again what it needs. The feature file in WORK stays.

    \b
    Example:
      mvemo cache clean-work work
    """
    from mvemo.pipeline.work_folder import clean_work

    size = clean_work(work, nets=nets, dry_run=dry_run)
    click.echo(f"{work}: {'would remove' if dry_run else 'removed'} {size.text()}")


@cache.command()
@argument("first", type=common.PATH)
@argument("second", type=common.PATH)
def diff(first: Path, second: Path) -> None:
    """List the differences between the caches FIRST and SECOND; exit code 1 if any.

    \b
    Example:
      mvemo cache diff laptop.h5 server.h5
    """
    differences = caches.diff_caches(first, second)
    click.echo("\n".join(differences) or "both have the same clips and features")
    if differences:
        raise click.exceptions.Exit(1)


@cache.command(name="import")
@_features
@argument("files", nargs=-1, required=True, metavar="FILE...")
@typed_option("--manifest", common.PATH, "Manifest of the clips; optional if FEATURES exists.")
@option("--feature", "name", help="Name of the feature, such as vggish.  [required]")
@option("--modality", required=True, help="audio, video, or another modality such as lyrics.")
@option("--dataset", help="Array in an .npz or HDF5 FILE (or write FILE:NAME).")
@typed_option(
    "--rows",
    common.PATH,
    "CSV with the clip ids of a FILE's rows, in order. May be given once for each FILE.",
    multiple=True,
)
@option(
    "--id-column",
    help="Column or data set of the clip ids; for a CSV without a header, the column number "
    "from 1.  [default: clip_id, or any that names the clips]",
)
@common.column_option
@common.task_option
@option("--columns", "numbers", help="Columns to import from a table, such as 'f*,tempo'.")
@option("--skip-columns", help="Columns of a table to leave out.")
@common.flag("--skip-unknown", "Leave out rows of clips that are not listed.")
@common.flag("--force", "Replace an existing feature with this name.")
def import_(features: Path, files: tuple[str, ...], name: str | None, **options: Any) -> None:
    """Import numbers that another program computed for the clips, as a feature of FEATURES.

    Each FILE (.npy, .npz, HDF5, CSV, Parquet) holds one row of numbers for each clip; several
    files are joined. If a column or array of FILE, or --rows, has clip ids, with or without
    folder and extension, rows are matched by id; otherwise by position, and they must be in
    the order of the manifest. A clip with NaN, an empty cell or no row lacks the feature.

    \b
    Example:
      mvemo cache import features.h5 vggish.npy --manifest clips.csv \\
          --feature vggish --modality audio
    """
    from mvemo.fuse.models import check_feature_name
    from mvemo.pipeline.clips.clip_tables import imported_clips, manifest_facts

    if name is None:
        raise BadOption("--feature: the feature needs a name, such as vggish")
    check_feature_name(name)
    modality = options["modality"]
    try:
        caches.check_modality(modality)
    except ValueError as error:
        raise BadOption(f"--modality: {error}") from None
    sources = [import_arrays.split_source(file)[0] for file in files] + list(options["rows"])
    facts: dict[str, Any] = {"imported": name, "files": [path.name for path in sources]}
    table = known = None
    if features.exists():
        with caches.open_cache(features) as cache:
            known = cache.table
    names = {} if known is None else {clip: clip for clip in known.clip_ids}
    if options["manifest"] is not None:
        clips = read_manifest(options["manifest"], task=options["task"], media=False)
        evaluation = imported_clips(clips)
        tell_notes([*clips.notes, *(() if features.exists() else evaluation.notes)])
        table = evaluation.table
        # Clips may be named by their paths or their ids.
        names = {clip.path: clip.clip_id for clip in clips.clips}
        names |= {clip_id: clip_id for clip_id in clips.clip_ids}
        known = table
        facts["manifest"] = manifest_facts(
            clips, options["manifest"], ManifestOptions(task=options["task"])
        )
    arrays = _read_arrays(files, options, names, known)
    values, ids = caches.join_arrays(arrays, options["rows"], id_column=options["id_column"])
    clip_ids, how = (None, "") if ids is None else tables.match_ids(ids, names)
    imported = caches.import_feature(
        features,
        name,
        modality,
        values,
        clip_ids,
        table=table,
        settings=caches.ImportSettings(
            sources=sources,
            skip_unknown=options["skip_unknown"],
            replace=options["force"],
            provenance=facts_of(**facts),
        ),
    )
    if not options["rows"]:
        tell_note(_columns_read(arrays[0], how))
    if arrays[0].left_out:
        tell_note(
            f"{arrays[0].path}: left out, because they state labels, folds or groups: "
            f"{text_table.listed(arrays[0].left_out)}; to import one, name it in --columns"
        )
    _tell_imported(features, name, imported)


def _tell_imported(features: Path, name: str, imported: caches.Imported) -> None:
    modality = imported.spec.modality
    if modality not in caches.MODALITIES:
        tell_note(
            f"{modality} is a modality in addition to {' and '.join(caches.MODALITIES)}: fusions "
            "use all modalities"
        )
    line = f"{name}: {imported.present} of {imported.clips} clips, {imported.spec.dim} numbers each"
    if imported.absent:
        line += (
            f"; no row for {len(imported.absent)} clips, {text_table.listed(imported.absent, 3)}"
        )
    if imported.incomplete:
        line += f"; {imported.incomplete} rows with missing numbers were left out"
    if imported.skipped:
        line += f"; {imported.skipped} rows of other clips were left out"
    click.echo(f"{line}: {features}")


def _read_arrays(
    files: Sequence[str],
    options: dict[str, Any],
    names: dict[str, str],
    table: caches.ClipTable | None,
) -> list[import_arrays.FileRows]:
    """Return the files' arrays; with --rows, --id-column is a column of the --rows table."""
    numbers, skipped = (
        common.comma_separated(options[o] or "") for o in ("numbers", "skip_columns")
    )
    columns = import_arrays.TableColumns(names, numbers, skipped, options["columns"], table)
    id_column = None if options["rows"] else options["id_column"]
    return [
        caches.read_array(
            file,
            dataset=options["dataset"],
            id_column=id_column,
            guess=not options["rows"],
            columns=columns,
        )
        for file in files
    ]


def _columns_read(array: import_arrays.FileRows, how: str) -> str:
    """Return a note that names the columns that were read as clip ids and as numbers."""
    of_ids = "none, matched by order"
    if array.id_name:
        of_ids = f"{'column' if array.columns else 'data set'} {array.id_name!r} {how}".rstrip()
    some = array.columns[:2] + (("…", array.columns[-1]) if len(array.columns) > 2 else ())
    numbers = f"; numbers: {' '.join(some) or array.dataset}" if some or array.dataset else ""
    return f"{array.path}: clip ids: {of_ids}{numbers}"
