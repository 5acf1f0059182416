"""The command `mvemo report`, run in process."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mvemo.pipeline.cli import mvemo

MINE = "clip_id,label,x,y\na,x,0.9,0.1\nb,y,0.2,0.8\nc,x,0.3,0.7\n"


def test_report_of_predictions(tmp_path, program):
    first, second = tmp_path / "mine.csv", tmp_path / "theirs.csv"
    first.write_text(MINE)
    second.write_text("clip_id,label,x,y\na,x,0.9,0.1\nb,y,0.2,0.8\nc,x,,\n")
    out = tmp_path / "out"
    words = ["--predictions", first, "--predictions", second, "--out", out, "--name", "my songs"]
    shown = program("mvemo", "report", *words).out
    assert "OTHERS' PREDICTIONS" in shown
    assert f"report: {out / 'report.html'}" in shown
    held = json.loads((out / "metrics.json").read_text())
    assert (held["name"], [*held["models"]]) == ("my songs", ["mine", "theirs"])
    files = held["provenance"]["prediction_files"]
    assert [file["name"] for file in files] == ["mine.csv", "theirs.csv"]
    # Of one fold there is no test, but a difference on the clips of both.
    (comparison,) = held["comparisons"]
    assert (comparison["model"], comparison["reference"]) == ("mine", "theirs")
    assert (comparison["clips"], comparison["mean"], comparison["p"]) == (2, 0, None)


def test_a_report_is_not_written_over_what_it_reads(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text(MINE)
    program("mvemo", "report", "--predictions", "mine.csv")
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    again = ("mvemo", "report", "--predictions", "out/predictions.csv")
    assert "give another folder with --out" in program(*again, ends=2).err
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before
    program(*again, "--out", "other")
    first, second = (json.loads(Path(out, "metrics.json").read_text()) for out in ("out", "other"))
    assert first["models"] == second["models"]


def test_predictions_with_other_columns_and_of_mvemo_itself(tmp_path):
    clips, theirs, ours = tmp_path / "clips.csv", tmp_path / "theirs.csv", tmp_path / "ours.csv"
    clips.write_text("path,label\nx/a.mp3,sad\nx/b.mp3,calm\nx/c.mp3,calm\n")
    theirs.write_text("song,pred\na,sad\nb,calm\nc,sad\n")
    ours.write_text(
        "path,model,label,confidence,calm,sad,notes,error\n"
        "/far/x/a.mp3,m/late,calm,0.9,0.9,0.1,,\n/far/x/b.mp3,m/late,calm,0.8,0.8,0.2,,\n"
        "/far/x/c.mp3,,,,,,,broken\n"
    )
    out = tmp_path / "out"
    command = ["report", "--manifest", clips, "--out", out, "--predictions"]

    def scores(*arguments):
        done = CliRunner().invoke(mvemo, [*map(str, command), *map(str, arguments)])
        assert done.exit_code == 0, done.output
        models = json.loads((out / "metrics.json").read_text())["models"]
        return {name: model["accuracy"]["mean"] for name, model in models.items()}

    columns = ["--column", "clip_id=song", "--column", "predicted=pred"]
    assert scores(theirs, *columns) == {"theirs": pytest.approx(2 / 3)}
    # Of what `mvemo predict` writes the label is no truth.
    assert scores(ours) == {"m/late": 0.5}
    done = CliRunner().invoke(mvemo, [*map(str, command), str(theirs)])
    assert "--column clip_id=NAME" in str(done.exception)
    alone = ["report", "--predictions", ours, "--column", "clip_id=path", "--out", out]
    assert "no column 'label'" in str(CliRunner().invoke(mvemo, [*map(str, alone)]).exception)


def test_the_manifest_of_predictions_states_the_ceiling(tmp_path, program):
    clips, mine = tmp_path / "clips.csv", tmp_path / "mine.csv"
    rows = ["c,x,0.5,4", "a,x,1,4", "b,y,0.9,4"]
    clips.write_text("\n".join(["clip_id,label,agreement,annotators", *rows, ""]))
    mine.write_text("clip_id,x,y\na,0.9,0.1\nb,0.2,0.8\n")
    words = ["--predictions", mine, "--manifest", clips, "--out", tmp_path / "out"]
    shown = program("mvemo", "report", *words).out
    (ceiling,) = json.loads((tmp_path / "out" / "metrics.json").read_text())["ceilings"]
    # Only the clips that were predicted count.
    assert (ceiling["clips"], ceiling["accuracy"]) == (2, pytest.approx(0.95))
    assert "one annotator: agrees with the majority for 95.0 % of 2 clips" in " ".join(
        shown.split()
    )


def test_methods_go_to_a_file_or_into_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        return CliRunner().invoke(mvemo, ["report", *words])

    Path("mine.csv").write_text(MINE)
    assert run("--predictions", "mine.csv").exit_code == 0
    text = run("--methods", "out").stdout
    assert "| licence | **missing** | state the licence" in text
    held = json.loads(run("--methods", "out", "--json").stdout)
    assert held["methods"] in text
    assert {"item": "folds", "stated": True, "text": "1, seed 0"} in held["checklist"]
    assert run("--methods", "out", "--json", "--out", "out").stdout.endswith("methods.json\n")
    assert run("--methods", "out/metrics.json").stdout == text
    done = run("--methods", "out", "--out", "new/text.md")
    assert done.stdout == f"methods: {Path('new', 'text.md')}\n"
    assert run("--methods", "out", "--out", "out").exit_code == 0
    for path in ("new/text.md", "out/methods.md"):
        assert Path(path).read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "features.h5"], "expected the folder of a run: 'mvemo fuse features.h5'"),
        (["--methods", "mine.csv"], "mine.csv: not JSON: "),
        (["--methods", "empty.json"], "'permuted' is missing or unknown"),
        (["--predictions", "mine.csv", "--json"], "--methods RUN [--json]"),
        (["--predictions", "mine.csv", "--out", "mine.csv"], "expected a folder, got a file"),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text("clip_id,label,x,y\na,x,0.9,0.1\nb,y,0.2,0.8\n")
    Path("empty.json").write_text("{}")
    Path("features.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    done = CliRunner().invoke(mvemo, ["report", *words])
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)
    assert not Path("out").exists()
