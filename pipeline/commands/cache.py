"""``mvemo cache``: look into a feature cache, check, repair, merge, export, import."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from mvemo.cache import (
    TEST,
    TRAIN,
    VALIDATION,
    BadCache,
    Cache,
    Modality,
    export_cache,
    import_feature,
    join_arrays,
    merge_caches,
    open_cache,
    read_array,
    repair_cache,
    verify_cache,
)
from mvemo.cache.imports.arrays import split_source
from mvemo.manifests import read_manifest
from mvemo.manifests.files import dump_json
from mvemo.pipeline.clip_tables import imported_clips
from mvemo.pipeline.provenance import provenance as facts_of

_PATH = click.Path(path_type=Path)
_features = click.argument("features", type=_PATH)
_force = click.option("--force", is_flag=True, help="Replace a file that is there.")


@click.group()
def cache() -> None:
    """The feature cache: look into it, check, repair, merge, export, import."""


@cache.command()
@_features
@click.option("--provenance", is_flag=True, help="Also print the whole provenance, as JSON.")
def info(features: Path, provenance: bool) -> None:
    """Print what FEATURES holds: clips, features, failures, where it came from."""
    with open_cache(features) as held:
        click.echo("\n".join(_summary(held)))
        if provenance:
            click.echo(dump_json(held.provenance), nl=False)


@cache.command()
@_features
@click.pass_context
def verify(context: click.Context, features: Path) -> None:
    """Check every value of FEATURES; one line for each problem, exit code 1 if any."""
    problems = verify_cache(features)
    for problem in problems:
        # Of a file that is no cache the one problem names it already.
        click.echo(f"{features}: {problem.removeprefix(f'{features}: ')}", err=True)
    if problems:
        context.exit(1)
    click.echo(f"{features}: sound")


@cache.command()
@_features
def repair(features: Path) -> None:
    """Drop what is corrupt in FEATURES, and take up what an unfinished run left.

    What was dropped is missing afterwards; running the extraction again makes it anew.
    """
    done = repair_cache(features)
    for sentence in done:
        click.echo(sentence)
    click.echo(f"{features}: {'repaired' if done else 'sound, nothing to repair'}")


@cache.command()
@click.argument("features", nargs=-1, required=True, type=_PATH)
@click.option("--out", type=_PATH, required=True, help="File to write.")
@_force
def merge(features: tuple[Path, ...], out: Path, force: bool) -> None:
    """Merge the caches FEATURES, of clips of one manifest, into one."""
    _refuse_replacing(out, force)
    merge_caches(features, out)
    with open_cache(out) as held:
        click.echo("\n".join(_summary(held)))


@cache.command()
@_features
@click.option("--feature", required=True, help="Name of the feature.")
@click.option("--fold", type=click.IntRange(min=0), help="Which fold's net, under crossfit.")
@click.option("--out", type=_PATH, required=True, help="File to write: .npz or .csv.")
@_force
def export(features: Path, feature: str, fold: int | None, out: Path, force: bool) -> None:
    """Write one feature of FEATURES with its clip ids, for other programs."""
    _refuse_replacing(out, force)
    export_cache(features, feature, out, fold=fold)
    click.echo(f"{feature}: {out}")


@cache.command(name="import")
@_features
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--manifest", "listed", type=_PATH, help="The clips; may be left out where FEATURES is there."
)
@click.option("--name", required=True, help="Of the feature, as vggish.")
@click.option("--modality", type=click.Choice(["audio", "video"]), required=True)
@click.option("--dataset", help="Which data set of an .npz or HDF5 file (also as FILE:NAME).")
@click.option(
    "--rows",
    type=_PATH,
    multiple=True,
    help="CSV with the clip ids of a FILE's rows, in order. May be given for each FILE.",
)
@click.option(
    "--id-column",
    help="Column or data set of the clip ids; of a CSV without a header its number, from 1.  "
    "[default: clip_id]",
)
@click.option("--skip-unknown", is_flag=True, help="Leave out rows of clips that are not listed.")
@click.option("--force", is_flag=True, help="Replace a feature of that name.")
def import_(
    features: Path,
    files: tuple[str, ...],
    listed: Path | None,
    name: str,
    modality: str,
    dataset: str | None,
    rows: tuple[Path, ...],
    id_column: str | None,
    skip_unknown: bool,
    force: bool,
) -> None:
    """Put numbers that another program made for the clips into FEATURES, as a feature.

    Each FILE (.npy, .npz, HDF5, CSV) holds a row of numbers a clip; several are joined.
    Rows are matched by clip id, if FILE or --rows names ids, else by their order, which
    must be that of the manifest. NaN, an empty cell or no row: the clip lacks the feature.
    """
    from mvemo.fuse.models import check_feature_name

    check_feature_name(name)
    # Other ids than those in the files make their own column a matter of --rows alone.
    inside = None if rows else id_column
    arrays = [read_array(file, dataset=dataset, id_column=inside, guess=not rows) for file in files]
    values, clip_ids = join_arrays(arrays, rows, id_column=id_column)
    kind: Modality = "audio" if modality == "audio" else "video"
    sources = [split_source(file)[0] for file in files] + list(rows)
    table = None
    if listed is not None:
        evaluation = imported_clips(read_manifest(listed, media=False))
        table = evaluation.table
        if not features.exists():
            for note in evaluation.notes:
                click.echo(f"note: {note}", err=True)
    done = import_feature(
        features,
        name,
        kind,
        values,
        clip_ids,
        table=table,
        sources=sources,
        skip_unknown=skip_unknown,
        replace=force,
        provenance=facts_of(imported=name, files=[path.name for path in sources]),
    )
    line = f"{name}: {done.present} of {done.clips} clips, {done.spec.dim} numbers each"
    if done.incomplete:
        line += f"; {done.incomplete} rows with numbers missing left out"
    if done.skipped:
        line += f"; {done.skipped} rows of other clips left out"
    click.echo(f"{line}: {features}")


def _refuse_replacing(out: Path, force: bool) -> None:
    if out.exists() and not force:
        raise BadCache(f"{out}: is there already: name another file, or give --force")


def _summary(held: Cache) -> list[str]:
    table = held.table
    made = "synthetic " if table.synthetic else ""
    folds = f"{table.k} folds (seed {table.fold_seed})" if table.k else "no folds"
    if table.splits is not None:
        counts = np.bincount(table.splits, minlength=3).tolist()
        folds = (
            f"{counts[TRAIN]} training, {counts[VALIDATION]} validation, {counts[TEST]} test clips"
        )
    lines = [
        f"{held.path}: schema {held.schema}, {held.path.stat().st_size / 1e6:.1f} MB, "
        f"digest {held.digest()[:16]}",
        f"{table.name}: {len(table)} {made}clips in {len(set(table.groups))} groups, {folds}",
        f"{table.task}: {', '.join(table.classes)}",
        "",
    ]
    rows = [("feature", "kind", "dim", "made by", "protocol", "folds", "clips")]
    for name in held.names():
        specs = held.variants(name)
        present = [int(held.present(name, spec.fold).sum()) for spec in specs]
        counts = f"{present[0]}" if len(set(present)) == 1 else f"{min(present)} to {max(present)}"
        first = specs[0]
        rows.append(
            (
                name,
                f"{first.modality} {first.kind}",
                str(first.dim),
                f"{first.extractor} {first.version}",
                first.protocol,
                _ranges([spec.fold for spec in specs if spec.fold is not None]),
                f"{counts} of {len(table)}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        lines.append("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
    lines.append("")
    reasons: dict[tuple[str, str], list[str]] = {}
    for failure in held.failures:
        reasons.setdefault((failure.stage, failure.reason), []).append(failure.clip_id)
    lines.append(f"{len(held.failures)} failures" + (", by reason:" if reasons else ""))
    for (stage, reason), clips in sorted(reasons.items(), key=lambda item: -len(item[1])):
        more = ", …" if len(clips) > 3 else ""
        lines.append(f"  {len(clips)} x {stage}: {reason} ({', '.join(clips[:3])}{more})")
    for key in ("command", "versions"):
        if key in held.provenance:
            value = held.provenance[key]
            if isinstance(value, dict):
                value = ", ".join(f"{k} {v}" for k, v in value.items())
            lines.append(f"{key}: {value}")
    return lines


def _ranges(folds: list[int]) -> str:
    """``0-5`` for all of them, else the numbers."""
    if not folds:
        return "-"
    if len(folds) > 2 and (np.diff(folds) == 1).all():
        return f"{folds[0]}-{folds[-1]}"
    return ",".join(map(str, folds))
