"""``mvemo fuse`` and ``mvemo cv`` (also the script ``mvemo-cv``): stage two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.settings import load_settings

# Those of `mvemo.fuse.songs`, which is not loaded for --help.
SONG_RULES = ("mean", "log-mean", "vote")
F = TypeVar("F", bound=Callable[..., Any])


def stage_two_options(function: F) -> F:
    """The argument and options that both commands take."""
    for decorate in reversed(
        (
            click.argument("features", type=click.Path(path_type=Path)),
            click.option(
                "--folds",
                type=click.IntRange(min=2),
                default=None,
                help="Number of folds.  [default: the cache's own, else 6]",
            ),
            click.option(
                "--out",
                type=click.Path(path_type=Path, file_okay=False),
                default=Path("out"),
                show_default=True,
                help="Folder of the report.",
            ),
            click.option(
                "--seed",
                type=click.IntRange(min=0),
                default=None,
                help="Make folds afresh with this seed (not of crossfitted features).",
            ),
            click.option("--models", default=None, help="Comma-separated names; all by default."),
            click.option(
                "--permute-labels",
                is_flag=True,
                help="Shuffle the labels: every score must come out at chance.",
            ),
            click.option(
                "--protocol",
                type=click.Choice(["crossfit", "frozen", "shared", "holdout"]),
                default=None,
                help="'shared' accepts scores of clips by nets that saw them.",
            ),
            click.option(
                "--repeats",
                type=click.IntRange(min=1),
                default=1,
                show_default=True,
                help="Evaluate on as many different folds (not of crossfitted features).",
            ),
            click.option(
                "--song-level",
                is_flag=True,
                help="Report whole songs, decided from their segments (CLIP@START).",
            ),
            click.option(
                "--song-rule",
                type=click.Choice(SONG_RULES),
                default="mean",
                show_default=True,
                help="How: mean or geometric mean of probabilities, or majority vote.",
            ),
            click.option("--learning-curve", is_flag=True, help="Also train heads on fewer clips."),
            click.option("--profile", default="paper", show_default=True, help="Settings."),
            click.option(
                "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting."
            ),
        )
    ):
        function = decorate(function)
    return function


@click.command()
@stage_two_options
def fuse(**options: Any) -> int:
    """Stage two: cross-validate heads over FEATURES, report, and save the heads."""
    return _run(save=True, **options)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@stage_two_options
def cv(**options: Any) -> int:
    """Cross-validate heads over FEATURES and report; nothing trained is kept."""
    return _run(save=False, **options)


def _run(
    *,
    save: bool,
    features: Path,
    folds: int | None,
    out: Path,
    seed: int | None,
    models: str | None,
    permute_labels: bool,
    protocol: str | None,
    repeats: int,
    song_level: bool,
    song_rule: Any,
    learning_curve: bool,
    profile: str,
    overrides: tuple[str, ...],
) -> int:
    settings = load_settings(profile, overrides)
    chosen = None if models is None else [m.strip() for m in models.split(",") if m.strip()]
    if chosen is not None and not chosen:
        raise BadOption(f"--models {models!r} names no model")

    from mvemo.pipeline.stage_two import run_fuse

    click.echo(
        run_fuse(
            features,
            settings.fuse,
            out=out,
            k=folds,
            seed=seed,
            models=chosen,
            permute_labels=permute_labels,
            protocol=protocol,
            repeats=repeats,
            songs=song_rule if song_level else None,
            learning_curve=learning_curve,
            save=save,
        )
    )
    return 0
