"""Commands ``mvemo`` and ``mvemo-cv``, with the handling of all errors.

Exit codes: 0 for success, also if clips failed, which are then listed; 1 if a check found
problems, or clips failed under ``--strict``; 2 for bad input, with one line on the problem and
the fix; 130 if interrupted; 143 if ended by SIGTERM.

A subcommand is imported when it is called: help needs no numeric library, and stage two runs
without the packages of stage one.
"""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.manifests.plugins import Plugin, plugins, reserve
from mvemo.pipeline.commands.options import CONTEXT, with_shared_options
from mvemo.pipeline.console import messages
from mvemo.pipeline.start import interrupting_signals, report_interrupt

# Subcommand -> module and function, and its line in ``mvemo --help``.
COMMANDS = {
    "doctor": ("doctor:doctor", "Check the installation: versions, codecs, GPU, weights, speed."),
    "demo": ("extract:demo", "Make generated clips and a report on them in a folder."),
    "manifest": (
        "manifest:manifest",
        "Make, check and split manifests, the lists of labelled clips.",
    ),
    "extract": ("extract:extract", "Stage one: turn media into one file of features."),
    "fuse": ("fuse:fuse", "Stage two: turn features into a report and saved heads."),
    "cv": ("fuse:cv", "Run stage two without saving heads, like mvemo-cv."),
    "predict": ("predict:predict", "Predict the emotion of your own songs, videos and folders."),
    "models": ("nets:models", "List the models that come with mvemo, and show their cards."),
    "explain": (
        "predict:explain",
        "Show the seconds and frames of a clip that drove its prediction.",
    ),
    "learn": ("labels:learn", "Make a new model from your corrections of predictions."),
    "report": ("report:report", "Write the report of any model from its predictions."),
    "audit": ("labels:audit", "Look for faults of the data in a file of features."),
    "labels": ("labels:labels", "Rank the labels of a file of features that are probably wrong."),
    "compare": ("fuse:compare", "Compare runs on the same clips and folds."),
    "cache": ("cache:cache", "Inspect, check, repair, merge, trim, export and import features."),
    "nets": ("nets:nets", "List the nets with their input, size and published weights."),
    "weights": ("nets:weights", "Download, list and check pretrained weights."),
}
# Parts of the operating system's messages if memory is too short to load a library.
_NO_ROOM = ("failed to map segment", "annot allocate memory")
# Modules that stage one needs in addition to the base install.
STAGE_ONE = ("torch", "torchvision", "av", "cv2", "soundfile", "soxr", "librosa", "platformdirs")


def plugged_commands() -> Mapping[str, Plugin]:
    """Return the commands that other parts of mvemo and other packages add, by name."""
    reserve("commands", COMMANDS)
    return plugins("commands")


def load_command(name: str) -> click.Command:
    """Import one of `COMMANDS` or of `plugged_commands`."""
    if name in COMMANDS:
        module, _, attribute = COMMANDS[name][0].partition(":")
        return with_shared_options(
            getattr(import_module(f"mvemo.pipeline.commands.{module}"), attribute)
        )
    return with_shared_options(plugged_commands()[name].load(_command_problem))


def _command_problem(value: Any) -> str:
    if isinstance(value, click.Command):
        return ""
    return f"expected a command of click, got {type(value).__name__}"


class LazyGroup(click.Group):
    """A click group that imports its subcommands when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(plugged_commands())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand; return None if the name is unknown and similar to none."""
        if cmd_name in COMMANDS or cmd_name in plugged_commands():
            return load_command(cmd_name)
        near = get_close_matches(cmd_name, self.list_commands(ctx), n=1)
        if near and not ctx.resilient_parsing:
            ctx.fail(f"unknown command {cmd_name!r}: did you mean {near[0]}?")
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands; only those of plug-ins are imported."""
        lines = {name: line for name, (_, line) in COMMANDS.items()}
        for name in sorted(plugged_commands()):
            try:
                lines[name] = load_command(name).get_short_help_str(limit=200)
            except BadOption as error:
                lines[name] = str(error)
        with formatter.section("Commands"):
            formatter.write_dl([*lines.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a subcommand without importing any."""
        return [
            CompletionItem(name, help=COMMANDS.get(name, ("", None))[1])
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]


@click.group(cls=LazyGroup, context_settings=CONTEXT)
@click.version_option(package_name="mvemo", prog_name="mvemo")
def mvemo() -> None:
    """Recognise the emotion of music and music videos.

    Stage one, `mvemo extract`, turns a manifest of labelled clips into one file of
    features; stage two, `mvemo fuse` or `mvemo-cv`, cross-validates fusion heads over
    this file and writes a report.

    \b
    Examples:
      mvemo doctor                      # check the installation
      mvemo demo                        # generated clips, and a report
      mvemo predict song.mp3            # the emotion of your own files
      mvemo fuse features.h5 --final    # a report, and a model of your own
    """


with_shared_options(mvemo)


def run(command: Callable[..., Any], name: str) -> None:
    """Run a click command as a program: errors become one line and an exit code."""
    shared = messages.Verbosity()
    with messages.guarded_streams(), interrupting_signals() as signals:
        with messages.running(shared):
            status = _status_of(command, name, signals, shared)
            messages.log_end(status)
        sys.exit(status)


def _status_of(
    command: Callable[..., Any], name: str, signals: list[int], shared: messages.Verbosity
) -> int:
    """Run a command and return its exit status; print errors that a user can fix as one line."""
    # click writes colours to a terminal; see no-color.org.
    color = False if os.environ.get("NO_COLOR") else None
    try:
        status = command(prog_name=name, standalone_mode=False, color=color, obj=shared)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        # Print the message without the usage that click would print first.
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else name
        text = " ".join(error.format_message().split()).removesuffix(".")
        messages.tell_error(f"{where}: {text}. See '{where} --help'.")
        return 2
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (Exception, KeyboardInterrupt) as error:
        # An interrupt during an import may surface as another error.
        if signals or isinstance(error, (click.Abort, KeyboardInterrupt)):
            return report_interrupt(signals, shared.resumable)
        line = bad_input(error)
        if line is None:
            raise
        if shared.level == "verbose":
            traceback.print_exc()
        messages.tell_error(f"{name}: {line}")
        return 2
    return status if isinstance(status, int) else 0


def bad_input(error: BaseException) -> str | None:
    """Return the one-line message for an error that the user can fix; None for a bug."""
    if isinstance(error, MvemoError):
        return str(error)
    if isinstance(error, ImportError):
        missing = (error.name or "").split(".")[0]
        if missing in STAGE_ONE:
            return (
                f"stage one needs the package {missing}, which is not installed: run "
                "pip install '.[extract]' in mvemo's folder"
            )
        if any(words in str(error) for words in _NO_ROOM):
            why = " ".join(str(error).split())
            return f"a package cannot be loaded because there is too little memory: {why}"
    if isinstance(error, MemoryError):
        return "there is too little memory: free some, or raise the limit (ulimit -v)"
    if isinstance(error, OSError) and error.errno is not None:
        return _file_line(error)
    return None


def _file_line(error: OSError) -> str:
    """Return a line with the operating system's error on a file or folder, and the fix."""
    if not error.filename:
        return error.strerror or str(error)
    if (
        isinstance(error, (FileExistsError, NotADirectoryError))
        and not Path(error.filename).is_dir()
    ):
        return f"{error.filename}: is a file, not a folder: give another path"
    remedy = ": give a path that can be written" if error.errno == errno.EROFS else ""
    return f"{error.filename}: {error.strerror}{remedy}"


def main() -> None:
    """Run ``mvemo``, for `mvemo.pipeline.start`."""
    run(mvemo, "mvemo")


def main_cv() -> None:
    """Run ``mvemo-cv``, for `mvemo.pipeline.start`."""
    # The import happens inside `run`, which reports an interruption in one line.
    run(lambda **options: load_command("cv")(**options), "mvemo-cv")
