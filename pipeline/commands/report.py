"""Command ``mvemo report``: a report made from predictions only."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import option

from mvemo import fuse
from mvemo.manifests import TASKS, Task, read_manifest
from mvemo.manifests.errors import BadFile, BadOption, MissingFile
from mvemo.manifests.text_files import read_json
from mvemo.pipeline.commands import options as common
from mvemo.pipeline.commands.options import typed_option
from mvemo.pipeline.console.messages import tell_notes
from mvemo.pipeline.provenance import provenance

if TYPE_CHECKING:
    from mvemo.manifests import Manifest


@click.command()
@typed_option(
    "--predictions files",
    common.INPUT,
    "Table: clip_id, label, a column of probabilities for each class (or 'predicted', the "
    "class); optional group, fold, model. May be given several times.",
    multiple=True,
)
@typed_option(
    "--methods run",
    common.INPUT,
    "Instead of a report, print a methods paragraph and a checklist on this run's folder.",
)
@common.column_option
@typed_option(
    "--task",
    click.Choice(TASKS),
    "Tags: labels separated by ';', a column of scores for each tag. Ratings: label_NAME and "
    "NAME.  [default: the manifest's, otherwise multiclass]",
)
@typed_option(
    "--manifest",
    common.INPUT_FILE,
    "Manifest with labels and groups of the clips; the files then need no label.",
)
@typed_option(
    "--out",
    common.OutputPath(makes_folders=True),
    "Folder of the report; with --methods the file of the text.  [default: out; with "
    "--methods stdout]",
)
@option("--name", help="Name of the data set.  [default: the first file's name]")
@common.scale_option
@common.paper_options
@common.flag("--json", "With --methods: JSON (methods, comparison, checklist) instead of Markdown.")
@common.flag("--from-logits", "The tables hold logits, not probabilities.")
@common.flag("--synthetic", "State in the report that the clips are generated.")
def report(
    files: tuple[Path, ...],
    run: Path | None,
    columns: dict[str, str],
    task: Task | None,
    manifest: Path | None,
    out: Path | None,
    **options: Any,
) -> None:
    """Score the predictions of any program, and write mvemo's report on them.

    The clips that the model was trained on are not known, and the report says so. If there
    are several models, each pair is compared.

    \b
    Example:
      mvemo report --predictions theirs.csv --out theirs
      mvemo report --predictions tags.csv --task multilabel --manifest clips.csv
      mvemo report --methods out
    """
    if (run is None) == (not files) or (options["json"] and run is None):
        raise BadOption("expected either --predictions FILE or --methods RUN [--json]")
    if run is not None:
        from mvemo.fuse.report import methods

        text = methods.methods_of_run(run, json=options["json"])
        if out is None:
            click.echo(text)
        else:
            from mvemo.fuse.report import report_files

            file = out / f"methods.{'json' if options['json'] else 'md'}" if out.is_dir() else out
            report_files.write_texts(file.parent, {file.name: f"{text}\n"})
            click.echo(f"methods: {file}")
        return
    out = out or Path("out")
    if out.is_file():
        raise BadOption(f"--out {out}: expected a folder, got a file")
    from mvemo.fuse.report import report_files, score_tables, tables
    from mvemo.pipeline.stage_two import tell_stale_model

    report_files.require_other_folder(out, files)
    clips = None if manifest is None else read_manifest(manifest, task=task, media=False)
    results = _results(files, clips, out, task=task, columns=columns, **options)
    # The table is printed first, so that an error in writing the report does not lose it.
    click.echo(fuse.format_table(results))
    fuse.write_report(results, out)
    tables.write_paper(score_tables.results_tables(results), *common.paper_of(options))
    tell_stale_model(out)
    click.echo(f"\nreport: {out / 'report.html'}")


def _results(
    files: tuple[Path, ...], clips: Manifest | None, out: Path, **options: Any
) -> fuse.Results:
    """Score the predictions in files; `clips` have labels, groups and media."""
    from mvemo.fuse import external
    from mvemo.fuse.crossval.comparisons import with_uncertainty
    from mvemo.pipeline.clips.clip_tables import links_of_manifest

    marks = [_marks_beside(file) for file in files]
    leaky_files = [file.name for file, mark in zip(files, marks, strict=True) if mark.get("leaky")]
    synthetic, permuted = (any(m.get(k) is True for m in marks) for k in ("synthetic", "permuted"))
    read = {name: options[name] for name in ("task", "columns", "from_logits")}
    predictions = fuse.read_predictions(*files, manifest=clips, **read)
    tell_notes(predictions.notes)
    name, scale = files[0].stem, ""
    if clips is not None:
        name, scale, synthetic = clips.name, clips.scale, synthetic or clips.synthetic
    results = fuse.results_of_predictions(
        predictions,
        name=options["name"] or name,
        synthetic=options["synthetic"] or synthetic,
        scale=options["scale"] or scale,
        provenance={**provenance(), "leaky_files": leaky_files},
    )
    results = replace(results, permuted=permuted, leaky=results.leaky or bool(leaky_files))
    if clips is not None:
        media = links_of_manifest(clips, out)
        results = external.with_manifest(replace(results, media=media), clips)
    return with_uncertainty(results)


def _marks_beside(predictions: Path) -> dict[str, Any]:
    """Return the content of ``metrics.json`` in the folder of the predictions, or {}."""
    with suppress(BadFile, MissingFile):
        return dict(read_json(predictions.with_name("metrics.json")))
    return {}
