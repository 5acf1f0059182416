"""``mvemo cache``: look into a feature cache, check, repair, merge and export it."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np

from mvemo.cache import (
    BadCache,
    Cache,
    export_cache,
    merge_caches,
    open_cache,
    repair_cache,
    verify_cache,
)

_PATH = click.Path(path_type=Path)
_features = click.argument("features", type=_PATH)
_force = click.option("--force", is_flag=True, help="Replace a file that is there.")


@click.group()
def cache() -> None:
    """The feature cache: look into it, check, repair, merge, export."""


@cache.command()
@_features
@click.option("--provenance", is_flag=True, help="Also print the whole provenance, as JSON.")
def info(features: Path, provenance: bool) -> None:
    """Print what FEATURES holds: clips, features, failures, where it came from."""
    with open_cache(features) as held:
        click.echo("\n".join(_summary(held)))
        if provenance:
            click.echo(json.dumps(held.provenance, indent=2, ensure_ascii=False))


@cache.command()
@_features
@click.pass_context
def verify(context: click.Context, features: Path) -> None:
    """Check every value of FEATURES; one line for each problem, exit code 1 if any."""
    problems = verify_cache(features)
    for problem in problems:
        click.echo(f"{features}: {problem}", err=True)
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


def _refuse_replacing(out: Path, force: bool) -> None:
    if out.exists() and not force:
        raise BadCache(f"{out}: is there already: name another file, or give --force")


def _summary(held: Cache) -> list[str]:
    table = held.table
    made = "synthetic " if table.synthetic else ""
    folds = f"{table.k} folds (seed {table.fold_seed})" if table.k else "no folds"
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
