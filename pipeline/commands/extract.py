"""``mvemo extract``: stage one."""

from __future__ import annotations

from pathlib import Path

import click

from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.settings import NET_NAMES, PROFILES, load_settings


@click.command()
@click.argument("manifest", required=False, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="The feature cache to write.  [default: WORK/features.h5]",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("work"),
    show_default=True,
    help="Folder of decoded media and checkpoints, which stays on this machine.",
)
@click.option(
    "--profile",
    default=None,
    help=f"{' or '.join(PROFILES)}, or a TOML file.  [default: paper; demo without MANIFEST]",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting.")
@click.option("--protocol", default=None, help="crossfit, frozen, shared or holdout.")
@click.option("--nets", default=None, help=f"Comma-separated, of {', '.join(NET_NAMES)}.")
@click.option("--folds", type=click.IntRange(min=2), default=None, help="Number of folds.")
@click.option("--seed", type=click.IntRange(min=0), default=None, help="Seed of the nets.")
@click.option(
    "--weights",
    "weight_files",
    multiple=True,
    metavar="NET=FILE",
    help="Pretrained weights of a net.",
)
@click.option("--root", type=click.Path(path_type=Path), default=None, help="Media root.")
@click.option("--force", is_flag=True, help="Replace a cache of other clips.")
def extract(
    manifest: Path | None,
    out: Path | None,
    work: Path,
    profile: str | None,
    overrides: tuple[str, ...],
    protocol: str | None,
    nets: str | None,
    folds: int | None,
    seed: int | None,
    weight_files: tuple[str, ...],
    root: Path | None,
    force: bool,
) -> int:
    """Stage one: read MANIFEST, train and embed, write one feature cache.

    Without MANIFEST a small synthetic data set is made and used. A run that was cut off
    goes on where it stopped when the same command is given again.
    """
    given = list(overrides)
    for key, value in (("protocol", protocol), ("nets", nets)):
        if value is not None:
            given.append(f'extract.{key}="{value}"')
    for key, number in (("folds", folds), ("seed", seed)):
        if number is not None:
            given.append(f"extract.{key}={number}")
    for entry in weight_files:
        net, equals, file = entry.partition("=")
        if not equals or net not in NET_NAMES:
            raise BadOption(f"--weights {entry!r}: write it as NET=FILE, NET one of {NET_NAMES}")
        if not Path(file).is_file():
            raise BadOption(f"--weights {entry!r}: there is no file {file}")
        given.append(f"nets.{net}.weights='''{file}'''")
    settings = load_settings(profile or ("paper" if manifest else "demo"), given)
    for entry in weight_files:
        if entry.partition("=")[0] not in settings.extract.nets:
            raise BadOption(
                f"--weights {entry!r}: its net does not run; --nets are "
                f"{', '.join(settings.extract.nets)}"
            )

    from mvemo.pipeline.stage_one import run_extract

    summary = run_extract(
        manifest,
        settings,
        work=work,
        out=out or work / "features.h5",
        root=root,
        force=force,
    )
    click.echo(summary.text())
    return 1 if summary.failures else 0
