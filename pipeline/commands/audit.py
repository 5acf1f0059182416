"""Command ``mvemo audit``: faults of the data in a file of features."""

from __future__ import annotations

from pathlib import Path

import click

from mvemo.pipeline.commands.options import FILE, PATH


@click.command()
@click.argument("features", type=PATH)
@click.option(
    "--manifest", type=FILE, help="Manifest whose column split is compared, too, clip by clip."
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--strict", is_flag=True, help="Exit with code 1 if there are findings.")
def audit(features: Path, manifest: Path | None, as_json: bool, strict: bool) -> int:
    """Look for faults of the data in FEATURES that make scores too good or too bad.

    Lists clips with equal or nearly equal vectors in different groups, splits or classes;
    features that know the labels; constant, repeated or wrongly scaled columns; clips far
    from all others; features that tell groups apart better than labels; classes in too few
    groups. Each finding names the clips and the cure.

    \b
    Examples:
      mvemo audit work/features.h5
      mvemo audit features.h5 --manifest clips.csv --json
    """
    from mvemo.cache import open_cache
    from mvemo.fuse.audit import audit_cache
    from mvemo.manifests import read_manifest
    from mvemo.manifests.files import dump_json
    from mvemo.manifests.text_table import listed

    with open_cache(features) as cache:
        splits = None
        if manifest is not None:
            split_of = {
                clip.clip_id: clip.split or ""
                for clip in read_manifest(manifest, media=False).clips
            }
            splits = [split_of.get(clip, "") for clip in cache.table.clip_ids]
        findings = audit_cache(cache, splits)
    if as_json:
        click.echo(dump_json({"findings": [finding.record() for finding in findings]}))
    for finding in () if as_json else findings:
        click.echo(f"{finding.message}.")
        if finding.clips:
            click.echo(f"  clips: {listed(finding.clips)}")
        click.echo(f"  cure: {finding.cure}")
    if not findings and not as_json:
        click.echo(f"{features}: no faults of the data were found")
    return 1 if strict and findings else 0
