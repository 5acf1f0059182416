"""Commands ``mvemo extract``, stage one, and ``mvemo demo``, both stages on generated clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import argument, option

from mvemo.manifests.errors import BadOption
from mvemo.pipeline.commands.options import (
    COUNT,
    INPUT,
    OUT_FOLDER,
    OutputPath,
    column_option,
    flag,
    folds_are_named,
    folds_option,
    rehash_option,
    root_option,
    seed_option,
    set_option,
    strict_option,
    task_option,
    weights_option,
    work_option,
)
from mvemo.pipeline.console.messages import collected_notes, tell, tell_note

if TYPE_CHECKING:
    from mvemo.pipeline.settings import Settings
    from mvemo.pipeline.stage_one.division import ExtractRequest
    from mvemo.pipeline.stage_one.summary import RepeatableRun


# Options that set a key of ``[extract]``.
_OVERRIDES = ("protocol", "nets", "retry_failed", "folds", "fail_fast", "seed", "workers")


@click.command()
@argument("manifest", required=False, type=INPUT)
@option(
    "--out",
    type=OutputPath(makes_folders=True, dir_okay=False),
    help="Feature cache to write.  [default: WORK/features.h5]",
)
@work_option
@option(
    "--profile",
    help="Settings: paper, best, demo, pretrained, or a TOML file.  "
    "[default: paper; demo without MANIFEST]",
)
@set_option
@option("--protocol", help="How nets are trained: crossfit, frozen, shared or holdout.")
@option(
    "--nets",
    help="Comma-separated names from `mvemo nets`.  [default: the profile's]",
)
@folds_option("6")
@seed_option("Seed of the nets' initial weights, batch order and dropout.")
@weights_option("File with pretrained weights of a net.")
@option(
    "--workers",
    type=COUNT,
    help="Number of processes that decode and describe clips.  [default: one per core]",
)
@root_option
@column_option
@task_option
@rehash_option
@flag("--force", "Replace an existing cache that holds other clips.")
@flag("--fail-fast", "Stop at the first clip that fails.")
@flag("--retry-failed", "Try again to decode clips that failed before.")
@option(
    "--shard",
    metavar="i/n",
    help="Process only part i of n, for n separate jobs; see docs/scaling.md.",
)
@option(
    "--jobs",
    type=COUNT,
    default=1,
    help="Number of processes that share the clips, or the nets and folds; each has a share of "
    "the cores, or a GPU.",
)
@flag(
    "--plan",
    "Print what would be done, and the time, memory and disk space that it needs. "
    "A few clips are read to measure; nothing is written.",
)
@option(
    "--backend",
    type=click.Choice(["local", "dask"]),
    default="local",
    help="Where the work is done: on this machine, or by the workers of a Dask scheduler.",
)
@option("--scheduler", metavar="ADDRESS", help="Address of the Dask scheduler: tcp://HOST:8786.")
@strict_option
def extract(
    manifest: Path | None,
    out: Path | None,
    work: Path,
    root: Path | None,
    force: bool,
    strict: bool,
    **options: Any,
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
    run = None if force else _repeatable_run(options, manifest, root, work, out)
    finished = run and run.recall()
    if finished:
        summary, told = finished
        for note in told:
            tell_note(note)
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
        request = _request(
            options, settings, manifest=manifest, root=root, work=work, out=out, force=force
        )
        from mvemo.pipeline.stage_one.run import run_extract

        if options["plan"]:
            from mvemo.pipeline.stage_one.estimate import forecast_run
            from mvemo.pipeline.stage_one.plan import plan_extract

            plan = plan_extract(replace(request, fetch=False, force=False))
            click.echo(forecast_run(plan))
            return 0
        summary = run_extract(request)
    if run is not None and summary.settled:
        run.keep(settings, summary, notes)
    click.echo(summary.text())
    return int(strict and bool(summary.failures))


def _repeatable_run(options: dict[str, Any], *places: Any) -> RepeatableRun | None:
    """Return the run if its result can be recalled later; otherwise None."""
    if any(options[name] for name in ("plan", "retry_failed", "shard", "scheduler")):
        return None
    from mvemo.pipeline.stage_one.summary import RepeatableRun

    return RepeatableRun(options, *places)


def _request(options: dict[str, Any], settings: Settings, **places: Any) -> ExtractRequest:
    """Return the run that the command line asks for."""
    from mvemo.manifests import ManifestOptions
    from mvemo.pipeline.stage_one.division import ExtractRequest, Shard

    backend, scheduler = options["backend"], options["scheduler"]
    if (backend == "dask") != bool(scheduler):
        missing = "--scheduler ADDRESS" if backend == "dask" else "--backend dask"
        raise BadOption(
            f"--backend dask and --scheduler ADDRESS must be given together: add {missing}"
        )
    shard = None if options["shard"] is None else Shard.parse(options["shard"])
    if shard is not None and options["plan"]:
        raise BadOption("--plan covers the whole run: leave out --shard")
    return ExtractRequest(
        settings=settings,
        options=ManifestOptions(places.pop("root"), options["columns"], options["task"]),
        fold_file=options["folds"] if isinstance(options["folds"], Path) else None,
        shard=shard,
        jobs=options["jobs"],
        scheduler=scheduler or "",
        **places,
    )


def _settings(options: dict[str, Any], default: str) -> Settings:
    """Return the settings that the command line asks for."""
    from mvemo.extract.nets.parts.encoder_names import encoder_of
    from mvemo.extract.workers.pool import cores
    from mvemo.pipeline.settings_files import Override, load_settings

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
    for net, file in options["weights"].items():
        if net not in {*settings.extract.nets, *map(encoder_of, settings.extract.nets)}:
            raise BadOption(
                f"--weights {net}={file}: this run does not use {net}: expected one of "
                f"{', '.join(settings.extract.nets)}"
            )
    if options["seed"] is not None and settings.extract.run.protocol == "frozen":
        tell_note(f"--seed {options['seed']} changes nothing: frozen nets are not trained")
    workers = options["workers"]
    if workers is not None and workers > cores():
        tell_note(
            f"--workers {workers}: this machine has {cores()} cores; more workers are not "
            "faster, but each needs memory"
        )
    named = options["profile"] is not None
    return replace(settings, profile_named=named, folds_named=folds_are_named(options))


@click.command()
@argument("folder", type=OUT_FOLDER, default=Path("mvemo-demo"))
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
    from mvemo.pipeline.settings_files import load_settings
    from mvemo.pipeline.stage_one.division import ExtractRequest
    from mvemo.pipeline.stage_one.run import run_extract
    from mvemo.pipeline.stage_two import FuseRequest, run_fuse, settings_for

    work, features = folder / "work", folder / "work" / "features.h5"
    summary = run_extract(ExtractRequest(None, load_settings("demo"), work, features))
    click.echo(f"{summary.text()}\n")
    request = FuseRequest(features, settings_for(features, "demo"), folder / "out")
    click.echo(run_fuse(request))
