"""Commands ``mvemo extract``, stage one, and ``mvemo demo``, both stages on generated clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import argument, option

from mvemo.manifests.errors import BadOption
from mvemo.pipeline.commands import options as common
from mvemo.pipeline.commands.options import typed_option
from mvemo.pipeline.console.messages import collected_notes, log_event, tell, tell_note, tell_notes

if TYPE_CHECKING:
    from mvemo.pipeline.settings import Settings
    from mvemo.pipeline.stage_one.division import ExtractRequest


# Options that set a key of ``[extract]``.
_OVERRIDES = ("protocol", "nets", "retry_failed", "folds", "fail_fast", "seed", "workers")


@click.command()
@argument("manifest", required=False, type=common.INPUT)
@typed_option(
    "--out",
    common.OutputPath(makes_folders=True, dir_okay=False),
    "Feature cache to write.  [default: WORK/features.h5]",
)
@common.work_option
@option(
    "--profile",
    help="Settings: paper, best, demo, pretrained, or a TOML file.  "
    "[default: paper; demo without MANIFEST]",
)
@common.set_option
@option("--protocol", help="How nets are trained: crossfit, frozen, shared or holdout.")
@option(
    "--nets",
    help="Comma-separated names from `mvemo nets`.  [default: the profile's]",
)
@common.folds_option("6")
@common.seed_option("Seed of the nets' initial weights, batch order and dropout.")
@common.weights_option("File with pretrained weights of a net.")
@typed_option(
    "--workers",
    common.COUNT,
    "Number of processes that decode and describe clips.  [default: one per core]",
)
@common.root_option
@common.column_option
@common.task_option
@common.rehash_option
@common.flag("--force", "Replace an existing cache that holds other clips.")
@common.flag("--fail-fast", "Stop at the first clip that fails.")
@common.flag("--retry-failed", "Try again to decode clips that failed before.")
@common.shard_option("Process only part i of n, for n separate jobs; see docs/scaling.md.")
@typed_option(
    "--jobs",
    common.COUNT,
    "Number of processes that share the clips, or the nets and folds; each has a share of "
    "the cores, or a GPU.",
    default=1,
)
@common.flag(
    "--plan",
    "Print what would be done, and the time, memory and disk space that it needs. "
    "A few clips are read to measure; nothing is written.",
)
@common.backend_options
@common.strict_option
def extract(
    manifest: Path | None, out: Path | None, work: Path, strict: bool, **options: Any
) -> int:
    """Stage one: read MANIFEST, train and embed, write one feature cache.

    Without MANIFEST, a small synthetic data set is made and used. An interrupted run
    continues where it stopped if the same command is run again. Clips that fail are
    listed with the reason and kept in the cache as failures; all others are processed.

    \b
    Examples:
      mvemo extract clips.csv --profile pretrained
      mvemo extract clips.csv --protocol frozen --nets music2d \\
          --weights music2d=msd.hdf5
      mvemo extract songs.csv --column path=wav --column label=mood
      mvemo extract clips.csv --jobs 4
      mvemo extract clips.csv --shard 1/8
      mvemo extract clips.csv --backend dask --scheduler tcp://head:8786
      mvemo extract clips.csv --plan
    """
    out = out or work / "features.h5"
    run = None
    # Runs with one of these options are never skipped as already finished.
    if not any(options[n] for n in ("force", "plan", "retry_failed", "shard", "scheduler")):
        from mvemo.pipeline.stage_one.summary import RepeatableRun

        run = RepeatableRun(options, manifest, work, out)
    if run and (finished := run.recall()):
        summary, told = finished
        tell_notes(told)
        tell(f"nothing to do: {out} was made with these clips, settings and weights")
        click.echo(summary.text())
        return int(strict and bool(summary.failures))
    from mvemo.extract.workers.pool import cores
    from mvemo.pipeline.stage_one.backends import early_processes

    # A plan does not need processes, and a scheduler uses its workers instead.
    jobs, readers = options["jobs"], options["workers"] or cores()
    if options["plan"] or options["scheduler"]:
        jobs, readers = 1, 0
    with collected_notes() as notes, early_processes(jobs, readers):
        settings = _settings(options, default="paper" if manifest else "demo")
        request = _request(options, manifest, settings, work, out)
        if options["plan"]:
            from mvemo.pipeline.stage_one.estimate import forecast_run

            click.echo(forecast_run(request))
            return 0
        from mvemo.pipeline.stage_one.run import run_extract

        summary = run_extract(request)
    if run is not None and summary.settled:
        run.keep(settings, summary, notes)
    click.echo(summary.text())
    for clip, stage, reason in summary.failures:
        log_event("clip", clip=clip, stage=stage, reason=reason)
    n_failed = len({clip for clip, _, _ in summary.failures})
    facts = {"file": str(out), "features": list(summary.features)}
    log_event("summary", clips=summary.clips, failed=n_failed, **facts)
    return int(strict and bool(summary.failures))


def _request(
    options: dict[str, Any], manifest: Path | None, settings: Settings, work: Path, out: Path
) -> ExtractRequest:
    from mvemo.manifests import ManifestOptions
    from mvemo.pipeline.stage_one.division import ExtractRequest

    scheduler = common.scheduler_of(options)
    if options["shard"] is not None and options["plan"]:
        raise BadOption("--plan covers the whole run: leave out --shard")
    return ExtractRequest(
        manifest,
        settings,
        work,
        out,
        ManifestOptions(options["root"], options["columns"], options["task"]),
        fold_file=options["folds"] if isinstance(options["folds"], Path) else None,
        scheduler=scheduler,
        **{name: options[name] for name in ("force", "shard", "jobs")},
    )


def _settings(options: dict[str, Any], default: str) -> Settings:
    from mvemo.extract.workers.pool import cores
    from mvemo.pipeline.settings_files import Override, load_settings, refuse_unused_weights

    overrides = list(options["overrides"])
    for name in _OVERRIDES:
        value = options[name]
        # A file of folds is not a setting.
        if value is not None and value is not False and not isinstance(value, Path):
            given = f"--{name.replace('_', '-')} {value}"
            setting = "true" if value is True else value
            overrides.append(Override(f"extract.{name}={setting}", given))
    overrides += [
        Override(f"nets.{net}.weights='''{file}'''", f"--weights {net}={file}")
        for net, file in options["weights"].items()
    ]
    settings = load_settings(options["profile"] or default, overrides)
    refuse_unused_weights(options["weights"], settings)
    if options["seed"] is not None and settings.extract.run.protocol == "frozen":
        tell_note(f"--seed {options['seed']} changes nothing: frozen nets are not trained")
    workers = options["workers"]
    if workers is not None and workers > cores():
        tell_note(
            f"--workers {workers}: this machine has {cores()} cores; more workers are not "
            "faster, but each needs memory"
        )
    named = options["profile"] is not None
    return replace(settings, profile_named=named, folds_named=common.folds_are_named(options))


@click.command()
@argument("folder", type=common.OUT_FOLDER, default=Path("mvemo-demo"))
def demo(folder: Path) -> None:
    """Make a small synthetic data set in FOLDER, train on it, and write a report.

    The data set has 96 clips of 4 seconds with sound and pictures, in six classes. The
    run takes minutes on two cores. An interrupted run keeps its finished parts. FOLDER is
    mvemo-demo by default; all files are in it, so delete it when done. In a clone,
    `make extract fuse` does the same.

    \b
    Example:
      mvemo demo try-it
    """
    from mvemo.pipeline.settings_files import load_settings, settings_for
    from mvemo.pipeline.stage_one.division import ExtractRequest
    from mvemo.pipeline.stage_one.run import run_extract
    from mvemo.pipeline.stage_two import FuseRequest, run_fuse

    work, features = folder / "work", folder / "work" / "features.h5"
    summary = run_extract(ExtractRequest(None, load_settings("demo"), work, features))
    click.echo(f"{summary.text()}\n")
    request = FuseRequest(features, settings_for(features, "demo"), folder / "out")
    click.echo(run_fuse(request))
