"""Commands on faulty data: ``mvemo labels``, ``manifest relabel``, ``audit`` and ``learn``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from click import argument, option

from mvemo import cache as caches
from mvemo import manifests
from mvemo.manifests.errors import BadOption
from mvemo.manifests.files import dump_json
from mvemo.manifests.text_table import align_columns, listed
from mvemo.pipeline.commands import options as common
from mvemo.pipeline.commands.options import typed_option
from mvemo.pipeline.console.messages import tell

# Number of labels that are listed in the terminal.
SHOWN = 20


@click.command()
@argument("features", type=common.INPUT)
@typed_option("--out", common.TABLE_FILE, "Table to write, for your corrections.")
@typed_option(
    "--most", common.COUNT, "Number of labels to list.  [default: all; 20 in the terminal]"
)
@common.models_option("Comma-separated models to choose from.  [default: all]")
@typed_option(
    "--share",
    click.FloatRange(0, 0.5, min_open=True),
    "Share of wrong labels for which the precision of the list is stated.",
    default=0.1,
)
@typed_option(
    "--next unlabelled",
    common.INPUT_FILE,
    "Rank clips of this file, such as one of mvemo predict --cache, to label them next.",
    metavar="CATALOGUE.h5",
)
@typed_option(
    "--manifest",
    common.INPUT_FILE,
    "Manifest with the disagreement of the annotators.  [default: that of FEATURES]",
)
@typed_option("--annotators", common.COUNT, "Annotators per clip, if the manifest does not say.")
@option("--profile", help="Settings, as in mvemo-cv.  [default: as FEATURES were made]")
@common.flag("--json", "Print the labels as JSON.")
@common.set_option
@common.force_option
def labels(features: Path, out: Path | None, manifest: Path | None, **options: Any) -> None:
    """Rank the labels of FEATURES that are probably wrong, most doubtful first.

    The doubt is the loss of the label under the out-of-fold prediction of the recommended
    model. The last line states how many of the first labels are wrong if 10 % (--share) of all
    labels are, and how many of all labels can be wrong. Fill in the column `corrected` of the
    CSV, and give it to `mvemo manifest relabel`. If known, the scores that the annotators'
    disagreement allows are printed, too. With --next, unlabelled clips are listed instead:
    uncertain ones that are unlike each other.

    \b
    Examples:
      mvemo labels features.h5 --out labels.csv
      mvemo labels features.h5 --manifest clips.csv --json
      mvemo labels features.h5 --next songs.h5 --most 50 --out next.csv
    """
    from mvemo.fuse.labelling import ERROR_FIELDS, find_label_errors
    from mvemo.pipeline.clips.clip_tables import ceilings_of_clips
    from mvemo.pipeline.settings_files import settings_for

    if out is not None:
        common.refuse_replacing(out, options["force"])
    if options["unlabelled"] is not None:
        return _next(features, out, options)
    settings = settings_for(features, options["profile"], options["overrides"])
    settings = replace(settings, models=options["models"])
    with caches.open_cache(features) as cache:
        ceilings = ceilings_of_clips(cache.table, manifest, options["annotators"])
        found = find_label_errors(cache, settings, options["share"])
        records = found.records(cache.table)[: options["most"]]
    names = ("model", "suspects", "precision", "at_most", "auroc")
    facts = {**{name: getattr(found, name) for name in names}, "share": options["share"]}
    facts |= {"labels": records, "ceilings": [ceiling.record() for ceiling in ceilings]}
    _show(records, ERROR_FIELDS, out, options, facts)
    if options["json"]:
        return
    less = f": see --share {found.at_most:.2g}" if found.at_most < options["share"] else ""
    click.echo(
        f"\n{found.model}: if {options['share']:.0%} of the labels were wrong, "
        f"{found.precision:.0%} of the {found.suspects} most doubtful ones would be "
        f"(AUROC {found.auroc:.3f}); at most {found.at_most:.0%} can be wrong if errors are random"
        f"{less}"
    )
    if ceilings:
        click.echo("\nLimits that the annotators' disagreement puts on scores:")
    for ceiling in ceilings:
        click.echo(f"  {ceiling.sentence()}")
    if out is not None:
        click.echo(f"wrote {out}: fill in 'corrected', then mvemo manifest relabel CLIPS.csv {out}")


def _show(
    records: Sequence[dict[str, Any]],
    fields: Sequence[str],
    out: Path | None,
    options: dict[str, Any],
    facts: dict[str, Any],
) -> None:
    """Write the labels with an empty column for corrections; print `facts` as JSON, or a table."""
    from mvemo.manifests.schemes import CORRECTED
    from mvemo.pipeline.table_files import write_rows

    cells = [[record[name] for name in fields] for record in records]
    rows = [[f"{c:.3g}" if isinstance(c, (int, float)) else c or "" for c in row] for row in cells]
    if out is not None:
        write_rows(out, [[*fields, CORRECTED], *([*row, ""] for row in rows)])
    if options["json"]:
        click.echo(dump_json(facts))
    else:
        lines = align_columns([fields, *rows[: options["most"] or SHOWN]], left=range(3))
        click.echo("\n".join(lines))


def _next(features: Path, out: Path | None, options: dict[str, Any]) -> None:
    from mvemo.fuse.labelling import NEXT_FIELDS, next_labels

    to_label = options["unlabelled"]
    with caches.open_cache(features) as labelled, caches.open_cache(to_label) as unlabelled:
        most = options["most"] or (None if out or options["json"] else SHOWN)
        records = [asdict(one) for one in next_labels(labelled, unlabelled, most)]
    _show(records, NEXT_FIELDS, out, options, {"next": records})


@click.command("relabel")
@argument("file", type=common.PATH)
@argument("table", type=common.PATH, metavar="LABELS.csv")
@typed_option("--out", common.CSV_FILE, "File to write.", required=True)
@common.root_option
@common.force_option
def relabel_command(file: Path, table: Path, out: Path, root: Path | None, force: bool) -> None:
    """Replace labels of manifest FILE with the column `corrected` of LABELS.csv.

    `mvemo labels` writes the table. Rows with an empty cell change nothing; tags and ratings
    are separated by `;`, and `[]` stands for no tags.

    \b
    Example:
      mvemo manifest relabel clips.csv labels.csv --out corrected.csv
    """
    from mvemo.manifests.schemes import relabel

    common.refuse_replacing(out, force)
    clips, n_changed = relabel(manifests.read_manifest(file, root=root, media=False), table)
    manifests.write_manifest(clips, out)
    click.echo(f"{n_changed} of {len(clips)} labels changed\nwrote {out}")


@click.command()
@argument("features", type=common.INPUT)
@typed_option("--manifest", common.INPUT_FILE, "Manifest whose column split is compared, too.")
@common.flag("--json", "Print the findings as JSON.")
@common.flag("--strict", "Exit with code 1 if there are findings.")
@typed_option("--out", common.OUT_FILE, "Write a corrected copy of FEATURES.")
@common.flag("--drop-duplicates", "In the copy: keep one of several equal or nearly equal clips.")
@common.flag("--merge-groups", "In the copy: join the groups of equal or nearly equal clips.")
@option("--exclude", multiple=True, metavar="FEATURE", help="In the copy: leave this feature out.")
def audit(features: Path, manifest: Path | None, out: Path | None, **options: Any) -> int:
    """Look for faults of the data in FEATURES that make scores too good or too bad.

    It lists clips with equal or nearly equal vectors in different groups, splits or classes;
    pieces of one source in several groups or splits; features made from the labels; rows that
    belong to other labels, or are shifted by a column; constant, repeated or wrongly scaled
    columns; clips far from all others; features that tell groups apart better than labels;
    classes in too few groups. Each finding states the clips and the cure.

    \b
    Examples:
      mvemo audit work/features.h5
      mvemo audit features.h5 --manifest clips.csv --json
      mvemo audit features.h5 --merge-groups --out clean.h5
    """
    from mvemo.fuse.audit import audit_file

    corrections = [name for name in ("drop_duplicates", "merge_groups", "exclude") if options[name]]
    if bool(corrections) != (out is not None):
        raise BadOption(
            "--out needs --drop-duplicates, --merge-groups or --exclude: give one of them"
            if out is not None
            else f"--{corrections[0].replace('_', '-')} needs --out FILE for the corrected copy"
        )
    with caches.open_cache(features) as cache:
        table, names = cache.table, cache.names()
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
        kept = [name for name in names if name not in options["exclude"]]
        clips, groups = _corrected(table, findings, kept, options)
        caches.select_features(features, kept, out, clips=clips, groups=groups)
        group_of = dict(zip(table.clip_ids, table.groups, strict=True))
        tell(
            f"{out}: {len(clips)} of {len(table)} clips, {len(kept)} of {len(names)} features, "
            f"{len({group_of[clip] for clip in groups})} groups joined to others"
        )
    return int(options["strict"] and bool(findings))


def _corrected(
    table: caches.ClipTable, findings: Any, names: Sequence[str], options: dict[str, Any]
) -> tuple[list[str], dict[str, str]]:
    """Return the clips to keep in a corrected copy, and the new group of each moved clip."""
    from mvemo.fuse.audit import first_of_each

    group_of = dict(zip(table.clip_ids, table.groups, strict=True))
    found = [f for f in findings if f.feature in ("", *names)]
    clips, groups = list(table.clip_ids), {}
    if options["drop_duplicates"]:
        first = first_of_each([pair for f in found if f.feature for pair in f.pairs])
        clips = [clip for clip in clips if first.get(clip, clip) == clip]
    if options["merge_groups"]:
        first = first_of_each([(group_of[a], group_of[b]) for f in found for a, b in f.pairs])
        groups = {clip: first[g] for clip, g in group_of.items() if first.get(g, g) != g}
    return clips, groups


@click.command()
@argument("corrections", type=common.INPUT_FILE)
@typed_option(
    "--features",
    common.INPUT_FILE,
    "File that mvemo predict --cache wrote with the same model.",
    required=True,
    metavar="CATALOGUE.h5",
)
@common.model_option
@typed_option(
    "--training",
    common.INPUT,
    "File that the model was made of: train on its clips, too.",
    metavar="FEATURES.h5",
)
@typed_option("--out", common.OUT_FOLDER, "Folder of the new model.", required=True)
@common.flag("--json", "Print the result as JSON.")
def learn(
    corrections: Path,
    features: Path,
    model_name: str | None,
    training: Path | None,
    out: Path,
    json: bool,
) -> None:
    """Make a new model from CORRECTIONS, a manifest of corrected predictions.

    No media are read. The old and the new model are compared on the corrected clips; each clip
    is scored by models made without it and its group. Without --training, the heads of the
    model are adapted: they change only as far as the corrections show a pattern.

    \b
    Example:
      mvemo predict songs/ --cache songs.h5 --csv songs.csv
      mvemo learn corrections.csv --features songs.h5 --out my-model
      mvemo predict songs/ --model my-model
    """
    from mvemo.pipeline import notebook

    result = notebook.learn(corrections, features, out, model=model_name, training=training)
    if json:
        click.echo(dump_json(asdict(result)), nl=False)
        return
    click.echo(f"{result.text}\nmodel: {result.model}")
