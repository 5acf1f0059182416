"""The program itself: what help loads, what a missing package says, how errors end."""

import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from stage_samples import lines_of

from mvemo.manifests import plugins
from mvemo.manifests.errors import BadOption
from mvemo.pipeline import cli, settings_files, stage_two
from mvemo.pipeline.commands.options import with_shared_options
from mvemo.pipeline.console.messages import Verbosity, note_resumable, silenced, tell, tell_note

HEAVY = ("numpy", "h5py", "scipy", "sklearn", "torch", "librosa", "matplotlib", "av", "cv2")
LIGHT = ("numpy", "scipy")


CALLS = (
    ("main", "--help"),
    ("main", "--version"),
    ("main", "fuse", "--help"),
    ("main", "extract", "--help"),
    ("main", "study", "losses", "--help"),
    ("main_cv", "--help"),
    ("main_cv", "--version"),
)


def test_help_loads_no_numeric_library():
    lines = lines_of([(0, *call) for call in CALLS], HEAVY)
    assert sum(line.startswith("Usage: ") for line in lines) == 5


# Calls with a path that does not exist, and the last line of what they say.
MISSING = {
    "extract no.csv": "mvemo: no.csv: no such file",
    "fuse no.h5": "mvemo: no.h5: no such file",
    "cv no.h5": "mvemo: no.h5: no such file",
    "audit no.h5": "mvemo: no.h5: no such file",
    "labels no.h5": "mvemo: no.h5: no such file",
    "report --predictions no.csv": "mvemo: no.csv: no such file",
    "learn no.csv --features no.h5 --out out": "mvemo: no.h5: no such file",
    "study j22 no.csv --out out": "mvemo: no.csv: no such file",
    "study transfer no.h5 no2.h5": "mvemo: no.h5: no such file",
    "tag no.csv": "mvemo: no.csv: no such file",
    "tag --undo no.jsonl": "mvemo: no.jsonl: no such file",
    "playlist no.csv --out out": "mvemo: no.csv: no such file",
    "serve no": "mvemo: no: no such file or folder",
    "explain no.mp3": "mvemo: no.mp3: no such file",
    "predict no.h5": "mvemo: no.h5: no such file",
    "predict no.mp3": "not predicted: no.mp3: no such file",
    "predict no.mp3 --timeline": "not predicted: no.mp3: no such file",
    "predict no*.mp3": "not predicted: no*.mp3: no file matches this pattern",
    "predict .": "not predicted: .: the folder has no media files",
    "predict lists.csv": "not predicted: gone.mp3: no such file in .",
    "predict empty.csv": "mvemo: empty.csv: the table lists no clips",
    "predict nosuch.mp3 --plan": "clips: 1, 1 of them cannot be read",
    "weights check i3d nosuch": "mvemo: nosuch: no such file",
    "compare . nosuch": "mvemo: nosuch/metrics.json: does not exist: "
    "'mvemo fuse ... --out nosuch' writes it",
}


def test_a_path_that_does_not_exist_is_told_before_a_slow_import(tmp_path):
    (tmp_path / "lists.csv").write_text("path\ngone.mp3\n")
    (tmp_path / "empty.csv").write_text("path\n")
    # numpy reads a model's heads, and scipy imports its parts on first use.
    slow = ("scipy.special", "scipy.sparse", *(name for name in HEAVY if name not in LIGHT))
    calls = [(0 if "--plan" in call else 2, "main", *call.split()) for call in MISSING]
    lines = lines_of(calls, slow, tmp_path)
    told = [line for line, after in pairwise(lines) if after.startswith("loaded")]
    assert told == list(MISSING.values())


@pytest.mark.parametrize(
    ("error", "line"),
    [
        # Errors that are not of the input are not hidden.
        (KeyError("a"), None),
        (ImportError("no", name="numpy"), None),
        (OSError("no number"), None),
        (
            ImportError("no", name="torch.nn"),
            "the package torch, which is not installed: run pip in",
        ),
        (FileNotFoundError(2, "No such file", "a.csv"), "a.csv: No such file"),
        (MemoryError(), "too little memory"),
        (ImportError("libtorch.so: failed to map segment from shared object"), "too little memory"),
    ],
)
def test_errors_of_the_input_are_one_line(error, line):
    found = cli.bad_input(error)
    assert found is None if line is None else line in found


@pytest.mark.parametrize("arguments", ["probe", "-q probe", "probe --quiet", "--verbose probe"])
def test_verbosity_is_asked_for_before_or_after_the_command(arguments, monkeypatch):
    @click.command
    def probe():
        click.echo("result")
        tell("told")
        with silenced():
            tell_note("once")
        tell_note("once")
        tell_note("once")

    monkeypatch.setattr(cli, "load_command", lambda name: with_shared_options(probe))
    monkeypatch.setitem(cli.COMMANDS, "probe", ("", ""))
    done = CliRunner().invoke(cli.mvemo, arguments.split(), obj=Verbosity())
    assert done.stdout == "result\n"
    assert done.stderr == ("" if "-q" in arguments else "told\nnote: once\n")


def test_verbose_tells_how_an_error_came_about(monkeypatch, capsys):
    @click.command
    def failing():
        raise BadOption("--folds 1: too few")

    def said(*arguments):
        monkeypatch.setattr(sys, "argv", ["mvemo", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.run(with_shared_options(failing), "mvemo")
        assert stop.value.code == 2
        return capsys.readouterr().err

    assert said() == "mvemo: --folds 1: too few\n"
    verbose = said("--verbose")
    assert verbose.startswith("Traceback")
    assert verbose.endswith(said())


@pytest.mark.parametrize(("value", "color"), [("", None), ("1", False)])
def test_no_color_is_heeded(value, color, monkeypatch):
    seen = []

    @click.command
    def probe():
        seen.append(click.get_current_context().color)

    monkeypatch.setenv("NO_COLOR", value)
    monkeypatch.setattr(sys, "argv", ["mvemo"])
    with pytest.raises(SystemExit):
        cli.run(probe, "mvemo")
    assert seen == [color]


def test_completion_imports_no_command(monkeypatch):
    monkeypatch.setattr(cli, "load_command", lambda name: pytest.fail("imported"))
    completed = ShellComplete(cli.mvemo, {}, "mvemo", "_MVEMO_COMPLETE").get_completions([], "c")
    assert [item.value for item in completed] == ["cv", "compare", "cache"]


@pytest.mark.parametrize("resumable", [True, False])
def test_only_what_is_kept_is_promised(resumable, capsys):
    @click.command()
    def long():
        if resumable:
            note_resumable()
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        cli.run(lambda **options: long.main([], **options), "mvemo")
    kept = "; finished work is kept: run the same command again"
    expected = f"interrupted{kept if resumable else ''}\n"
    assert (stop.value.code, capsys.readouterr().err.lstrip("\n")) == (130, expected)


def test_demo_makes_everything_in_its_folder_by_the_profile_demo(tmp_path, monkeypatch):
    calls = {}

    def run_extract(request):
        calls["extract"] = (request.manifest, request.settings.profile, request.work, request.out)
        return SimpleNamespace(text=lambda: "extracted")

    def run_fuse(request):
        calls["fuse"] = (request.features, request.settings, request.out)
        return "fused"

    monkeypatch.setattr("mvemo.pipeline.stage_one.run.run_extract", run_extract)
    monkeypatch.setattr(stage_two, "run_fuse", run_fuse)
    monkeypatch.setattr(settings_files, "settings_for", lambda features, profile: profile)
    done = CliRunner().invoke(cli.mvemo, ["demo", str(tmp_path / "try it")])
    assert done.output == "extracted\n\nfused\n"
    work, out = tmp_path / "try it" / "work", tmp_path / "try it" / "out"
    assert calls["extract"] == (None, "demo", work, work / "features.h5")
    assert calls["fuse"] == (work / "features.h5", "demo", out)


class Probe:
    """Entry point of another package."""

    def __init__(self, name, result):
        self.name, self.result = name, result
        self.module, self.dist = "other", type("D", (), {"name": "other-package", "version": "1"})

    def load(self):
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def test_commands_of_other_packages_are_found(monkeypatch, capsys):
    @click.command()
    def probe():
        """Print a word. And more."""
        click.echo("word")

    @click.command()
    def fuse():
        """Take the name of a command of mvemo."""

    points = [Probe("probe", probe), Probe("fuse", fuse)]
    points += [Probe("broken", ImportError("no module named x")), Probe("odd", 3)]
    plugins._installed.cache_clear()
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)

    def status(*arguments):
        monkeypatch.setattr(sys, "argv", ["mvemo", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, capsys.readouterr()

    code, shown = status("--help")
    lines = [line.split() for line in shown.out.splitlines()]
    assert not code
    assert ["probe", "Print", "a", "word."] in lines
    assert sum(line[:1] == ["fuse"] for line in lines) == 1
    assert status("probe")[1].out == "word\n"
    assert cli.load_command("fuse") is not fuse
    for name, problem in (("broken", "ImportError: no module named x"), ("odd", "got int")):
        code, shown = status(name)
        (line,) = shown.err.splitlines()
        assert code == 2
        assert "other-package cannot provide this command" in line
        assert problem in line
    plugins._installed.cache_clear()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.parametrize(("call", "status"), [("--version", 0), ("predict", 2)])
def test_a_closed_stream_keeps_the_exit_code(closed, call, status):
    code = "from mvemo.pipeline.start import main; main()"
    done = subprocess.run(f'"{sys.executable}" -c "{code}" {call} {closed}', shell=True)
    assert done.returncode == status


POOLS = {
    "joblib": (
        "from mvemo.manifests.demo import make_demo\n"
        "    make_demo('media', clips_per_class=2, seconds=4.0)"
    ),
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "    pool = ThreadPoolExecutor(2)\n"
        "    assert sum(pool.map(abs, range(4))) == 6"
    ),
}


@pytest.mark.parametrize("pool", POOLS)
def test_an_interrupted_command_does_not_wait_for_idle_pools(pool, tmp_path):
    # joblib ends idle processes after five minutes by itself.
    code = (
        "from types import SimpleNamespace\n"
        "from mvemo.pipeline import start\n"
        f"def main():\n    {POOLS[pool]}\n    raise KeyboardInterrupt\n"
        "start.import_module = lambda name: SimpleNamespace(main=main)\n"
        "start.main()\n"
    )
    (tmp_path / "program.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "program.py"], capture_output=True, text=True, cwd=tmp_path, timeout=200
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
