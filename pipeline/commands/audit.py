"""Command ``mvemo audit``: faults of the data in a file of features."""

from pathlib import Path
from typing import Any

import click
from click import argument, option

from mvemo.manifests.errors import BadOption
from mvemo.pipeline.commands.options import INPUT, INPUT_FILE, OUT_FILE, flag


@click.command()
@argument("features", type=INPUT)
@option("--manifest", type=INPUT_FILE, help="Manifest whose column split is compared, too.")
@flag("--json", "Print the findings as JSON.")
@flag("--strict", "Exit with code 1 if there are findings.")
@option("--out", type=OUT_FILE, help="Write a corrected copy of FEATURES.")
@flag("--drop-duplicates", "In the copy: keep one of several equal or nearly equal clips.")
@flag("--merge-groups", "In the copy: join the groups of equal or nearly equal clips.")
@option("--exclude", multiple=True, metavar="FEATURE", help="In the copy: leave this feature out.")
def audit(features: Path, manifest: Path | None, out: Path | None, **options: Any) -> int:
    """Look for faults of the data in FEATURES that make scores too good or too bad.

    Lists clips with equal or nearly equal vectors in different groups, splits or classes;
    pieces of one source in several groups or splits; features made from the labels; rows of
    other labels, or shifted by a column; constant, repeated or wrongly scaled columns; clips
    far from all others; features that tell groups apart better than labels; classes in too
    few groups. Each finding states the clips and the cure.

    \b
    Examples:
      mvemo audit work/features.h5
      mvemo audit features.h5 --manifest clips.csv --json
      mvemo audit features.h5 --merge-groups --out clean.h5
    """
    from mvemo.cache import open_cache
    from mvemo.fuse.audit import audit_file
    from mvemo.manifests.files import dump_json
    from mvemo.manifests.text_table import listed

    corrections = [name for name in ("drop_duplicates", "merge_groups", "exclude") if options[name]]
    if bool(corrections) != (out is not None):
        raise BadOption(
            "--out needs --drop-duplicates, --merge-groups or --exclude: give one of them"
            if out is not None
            else f"--{corrections[0].replace('_', '-')} needs --out FILE for the corrected copy"
        )
    with open_cache(features) as cache:
        names = cache.names()
    for name in options["exclude"]:
        if name not in names:
            listing = ", ".join(names)
            raise BadOption(f"--exclude {name}: unknown feature; expected one of {listing}")
    findings = audit_file(features, manifest)
    if options["json"]:
        click.echo(dump_json({"findings": [finding.record() for finding in findings]}))
    else:
        for finding in findings:
            click.echo(f"{finding.message}.")
            if finding.clips:
                click.echo(f"  clips: {listed(finding.clips)}")
            click.echo(f"  cure: {finding.cure}")
        if not findings:
            click.echo(f"{features}: no faults of the data were found")
    if out is not None:
        _write_corrected(features, out, findings, options)
    return int(options["strict"] and bool(findings))


def _write_corrected(features: Path, out: Path, findings: Any, options: dict[str, Any]) -> None:
    from mvemo.cache import open_cache, select_features
    from mvemo.fuse.audit import first_of_each
    from mvemo.pipeline.console.messages import tell

    with open_cache(features) as cache:
        table, names = cache.table, cache.names()
    kept = [name for name in names if name not in options["exclude"]]
    group_of = dict(zip(table.clip_ids, table.groups, strict=True))
    found = [finding for finding in findings if finding.feature in ("", *kept)]
    pairs = [pair for finding in found for pair in finding.pairs]
    clips, groups = list(table.clip_ids), {}
    if options["drop_duplicates"]:
        first = first_of_each(
            [pair for finding in found if finding.feature for pair in finding.pairs]
        )
        clips = [clip for clip in clips if first.get(clip, clip) == clip]
    if options["merge_groups"]:
        first = first_of_each([(group_of[a], group_of[b]) for a, b in pairs])
        groups = {clip: first[g] for clip, g in group_of.items() if first.get(g, g) != g}
    select_features(features, kept, out, clips=clips, groups=groups)
    tell(
        f"{out}: {len(clips)} of {len(table)} clips, {len(kept)} of {len(names)} features, "
        f"{len({group_of[clip] for clip in groups})} groups joined to others"
    )
