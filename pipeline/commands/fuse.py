"""Commands of stage two: ``mvemo fuse``, ``cv`` (also the script ``mvemo-cv``) and ``compare``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import argument, option

from mvemo.manifests import files, text_files
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.commands import options as common
from mvemo.pipeline.commands.options import typed_option

if TYPE_CHECKING:
    from mvemo.fuse.crossval.evaluation_settings import EstimatorSettings

# Copy of the rules in `mvemo.fuse.songs`, so that --help need not import it.
SONG_RULES = ("mean", "log-mean", "vote")
# Options that have the same name as their setting.
SAME_NAMES = ("seed", "models", "permute_labels", "scale", "repeats", "learning_curve")

stage_two_options = common.together(
    [
        argument("features", type=common.INPUT),
        common.folds_option("the cache's folds, otherwise 6"),
        typed_option("--out", common.OUT_FOLDER, "Folder of the report.", default=Path("out")),
        common.seed_option("Make new folds with this seed (not for crossfitted features)."),
        common.models_option(
            "Comma-separated models; FEATURE+FEATURE fuses any features.  [default: all]"
        ),
        option(
            "--head",
            "heads",
            multiple=True,
            metavar="NAME",
            help="Also evaluate an estimator over all features: sklearn:sklearn.svm.SVC, another "
            "class like it, or the name of a plug-in.  [repeatable]",
        ),
        typed_option(
            "--head-parameters",
            common.PATH,
            "Parameters by head, such as [SVC] C = [0.1, 1.0]; lists are tuned.",
            metavar="FILE.toml",
        ),
        common.draws_option,
        common.scale_option,
        typed_option(
            "--protocol",
            click.Choice(["crossfit", "frozen", "shared", "holdout"]),
            "Protocol of FEATURES; 'shared' accepts nets trained on the clips they score.",
        ),
        typed_option(
            "--repeats",
            common.COUNT,
            "Number of evaluations on different folds (not for crossfitted features).",
            default=1,
        ),
        common.flag(
            "--song-level",
            "Score whole songs, predicted from their segments (CLIP@START).",
        ),
        typed_option(
            "--song-rule",
            click.Choice(SONG_RULES),
            "Combine segments by (geometric) mean of probabilities, or by majority vote.",
            default="mean",
        ),
        common.flag("--learning-curve", "Also train heads on fewer clips."),
        option(
            "--profile",
            help="paper, best, demo or pretrained, or a TOML file.  [default: the one that "
            "FEATURES were made with if it is one of these, otherwise paper]",
        ),
        common.flag("--final", "Also write a model for new clips (mvemo predict)."),
        typed_option(
            "--final-to",
            common.OUT_FOLDER,
            "Write this model into a folder.  [default of --final: OUT/model]",
        ),
        typed_option(
            "--about",
            common.PATH,
            "TOML file with texts for the model's card, such as title, data and licence.",
        ),
        typed_option(
            "--degradations",
            common.INPUT,
            "Features of changed copies of the clips, named CLIP@DEGRADATION, such as x@mp3: the "
            "model does not call them unlike its clips.",
        ),
        typed_option(
            "--work",
            common.FOLDER,
            "Working folder of mvemo extract with the trained nets for the model.  "
            "[default: that of FEATURES]",
        ),
        typed_option(
            "--media",
            common.FOLDER,
            "Folder with the clips' files, named like the clips, for the report's players.  "
            "[default: the files of the manifest]",
        ),
        typed_option(
            "--figures",
            common.OUT_FOLDER,
            "Also write the figures as SVG and PDF files into this folder.",
        ),
        option(
            "--mlflow",
            metavar="FOLDER|URI",
            help="Also log settings, scores and files to this tracking store of MLflow.",
        ),
        common.paper_options,
        common.set_option,
    ]
)


@click.command(cls=common.PermutingCommand)
@stage_two_options
def fuse(**options: Any) -> None:
    """Stage two: cross-validate heads over FEATURES, report, and save the heads.

    \b
    Examples:
      mvemo fuse work/features.h5
      mvemo fuse work/features.h5 --final --out out
    """
    _run(save=True, **options)


@click.command(cls=common.PermutingCommand, context_settings=common.CONTEXT)
@click.version_option(package_name="mvemo", prog_name="mvemo-cv")
@stage_two_options
def cv(**options: Any) -> None:
    """Cross-validate heads over FEATURES and report; no trained head is saved.

    \b
    Examples:
      mvemo-cv features.h5 --folds 6 --repeats 10
      mvemo-cv features.h5 --permute-labels --out chance
    """
    _run(save=False, **options)


def _run(*, save: bool, features: Path, out: Path, **options: Any) -> None:
    """Evaluate, write the report, and print the table."""
    from mvemo.pipeline.models.boxed import read_about
    from mvemo.pipeline.settings_files import settings_for
    from mvemo.pipeline.stage_one.shards import refuse_unfinished
    from mvemo.pipeline.stage_two import FinalSettings, FuseRequest, run_fuse

    refuse_unfinished(features)
    folds, about, final = options["folds"], options["about"], None
    if options["final"] or options["final_to"] is not None:
        for name in ("song-level", "permute-labels"):
            if options[name.replace("-", "_")]:
                raise BadOption(f"--final cannot be combined with --{name}: leave out one of them")
        facts = {} if about is None else read_about(about)
        folder = options["final_to"] or out / "model"
        final = FinalSettings(folder, options["work"], facts, options["degradations"])
    for name in ("about", "degradations"):
        if final is None and options[name] is not None:
            raise BadOption(f"--{name} {options[name]}: needs a model: add --final")
    settings = replace(
        settings_for(features, options["profile"], options["overrides"]),
        **{name: options[name] for name in SAME_NAMES},
        folds=folds if isinstance(folds, int) else None,
        estimators=_estimators(options["heads"], options["head_parameters"]),
        allow_leak=options["protocol"] == "shared",
        songs=options["song_rule"] if options["song_level"] else None,
        refit=save or final is not None,
    )
    request = FuseRequest(
        features,
        settings,
        out,
        fold_file=folds if isinstance(folds, Path) else None,
        final=final,
        save_heads=save,
        paper=common.paper_of(options),
        **{name: options[name] for name in ("protocol", "figures", "mlflow", "media")},
    )
    click.echo(run_fuse(request))


def _estimators(heads: Sequence[str], parameters: Path | None) -> tuple[EstimatorSettings, ...]:
    """Return the settings of the estimators, after a check of their names and parameters."""
    from mvemo.fuse.crossval.evaluation_settings import EstimatorSettings

    tables = {} if parameters is None else text_files.read_toml(parameters)
    found = [EstimatorSettings(head) for head in dict.fromkeys(heads)]
    for name, table in tables.items():
        if name not in [one.name for one in found] or not isinstance(table, dict):
            expected = ", ".join(f"[{one.name}]" for one in found) or "a --head"
            raise BadOption(f"{parameters}: [{name}]: expected a table for {expected}")
    found = [replace(one, parameters=tables.get(one.name, {})) for one in found]
    for one in found:
        one.load()
    return tuple(found)


def _refuse_missing(context: Any, parameter: Any, runs: tuple[str, ...]) -> tuple[str, ...]:
    for run in runs:
        # Both the folder and the model may contain colons.
        ends = (i for i, character in enumerate(f"{run}:") if character == ":")
        if not any(Path(run[:end]).exists() for end in ends if end):
            folder = run.rpartition(":")[0] or run
            raise BadOption(
                f"{Path(folder, 'metrics.json')}: does not exist: 'mvemo fuse ... --out {folder}' "
                "writes it"
            )
    return runs


@click.command()
@argument(
    "runs",
    nargs=-1,
    required=True,
    metavar="RUN[:MODEL]...",
    type=common.ENTRY,
    callback=_refuse_missing,
)
@typed_option(
    "--out", common.OUT_FOLDER, "Also write comparison.json and comparison.txt into this folder."
)
@typed_option(
    "--resamples n_resamples", common.COUNT, "Number of bootstrap resamples.", default=2000
)
@typed_option("--seed", click.IntRange(min=0), "Seed of the bootstrap.", default=0)
@common.paper_options
def compare(
    runs: tuple[str, ...],
    out: Path | None,
    n_resamples: int,
    seed: int,
    **options: Any,
) -> None:
    """Compare models of several RUNs, folders that `mvemo fuse`, `cv` or `report` wrote.

    If two RUNs have names of models in common, these are compared with each other;
    otherwise every model is compared with every model. RUN:MODEL selects one model. Each
    pair is compared on the same clips and folds: difference, 95 % interval (paired group
    bootstrap) and a corrected test.

    \b
    Examples:
      mvemo compare out theirs
      mvemo compare out:integrated out:musicnn
    """
    from mvemo.fuse import compare_runs
    from mvemo.fuse.report.report_files import write_texts
    from mvemo.fuse.report.tables import write_paper

    comparison = compare_runs.compare_runs(runs, n_resamples=n_resamples, seed=seed)
    table = compare_runs.format_run_comparison(comparison)
    click.echo(table)
    write_paper(compare_runs.comparison_tables(comparison), *common.paper_of(options))
    if out is not None:
        values = files.dump_json(compare_runs.run_comparison_dict(comparison))
        write_texts(out, {"comparison.json": values, "comparison.txt": f"{table}\n"})
        click.echo(f"\ncomparison: {out / 'comparison.json'}")
