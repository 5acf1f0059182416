"""The command ``mvemo`` and the script ``mvemo-cv``; the one place where errors end.

Exit codes: 0 all well; 1 some clips failed, all others are done; 2 bad input, with one
line that says what and what would be right; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

import click

from mvemo.cache.errors import CacheError
from mvemo.extract.errors import ExtractError
from mvemo.fuse.errors import FuseError
from mvemo.manifests.errors import ManifestError
from mvemo.pipeline.commands.cache import cache
from mvemo.pipeline.commands.compare import compare
from mvemo.pipeline.commands.extract import extract
from mvemo.pipeline.commands.fuse import cv, fuse
from mvemo.pipeline.commands.manifest import manifest
from mvemo.pipeline.commands.report import report
from mvemo.pipeline.commands.study import study
from mvemo.pipeline.commands.weights import weights
from mvemo.pipeline.errors import PipelineError

OURS = (ManifestError, CacheError, ExtractError, FuseError, PipelineError)
# What stage one needs beyond the base install.
STAGE_ONE = ("torch", "torchvision", "av", "cv2", "soundfile", "soxr", "librosa")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("mvemo"), prog_name="mvemo")
def mvemo() -> None:
    """Recognise the emotion of music and music videos.

    Stage one, `mvemo extract`, turns a manifest of labelled clips into one file of
    features; stage two, `mvemo fuse` or `mvemo-cv`, cross-validates fusion heads over
    that file alone and writes a report.
    """


for _command in (manifest, extract, fuse, cv, report, compare, cache, weights, study):
    mvemo.add_command(_command)


def run(command: Callable[..., Any], name: str) -> None:
    """Run a click command as a program: errors become one line and an exit code."""
    try:
        status = command(prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        # Without the lines on usage that click puts before it.
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else name
        text = " ".join(error.format_message().split())
        click.echo(f"{where}: {text} See '{where} --help'.", err=True)
        sys.exit(2)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what was finished is kept, run the same again", err=True)
        sys.exit(130)
    except OURS as error:
        click.echo(f"{name}: {error}", err=True)
        sys.exit(2)
    except ImportError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in STAGE_ONE:
            raise
        click.echo(
            f"{name}: stage one needs the package {missing}, which this install lacks: "
            "pip install 'mvemo[extract]'",
            err=True,
        )
        sys.exit(2)
    except OSError as error:
        if error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"{name}: {where}{error.strerror}", err=True)
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)


def main() -> None:
    """Entry point of ``mvemo``."""
    run(mvemo, "mvemo")


def main_cv() -> None:
    """Entry point of ``mvemo-cv``."""
    run(cv, "mvemo-cv")
