"""Options that several commands share: one spelling, and a line where one changes nothing."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from feature_samples import crossfit_cache, frozen_cache, make_table
from stage_samples import run

from mvemo.cache import open_cache
from mvemo.fuse import EvaluationSettings
from mvemo.manifests import Clip, Manifest, folds_of, read_manifest, write_folds, write_manifest
from mvemo.pipeline.stage_two import _folds_without_seed

CV = ("--models", "music1d", "--set", "fuse.n_resamples=0", "--set", "fuse.choose_C=false")


@pytest.fixture
def manifest(tmp_path):
    """Of twelve clips whose files are empty, with a split."""
    clips = []
    for i in range(12):
        (tmp_path / f"{i}.wav").touch()
        split = "test" if i % 3 == 0 else "train"
        clips.append(Clip(f"c{i}", f"{i}.wav", ("ab"[i % 2],), f"g{i}", split=split))
    path = tmp_path / "clips.csv"
    write_manifest(Manifest("twelve", "multiclass", ("a", "b"), tuple(clips), tmp_path), path)
    return path


def error_of(capsys, *command):
    """The one line of a command that is refused."""
    assert run(*command) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_an_imported_feature_needs_a_name(manifest, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.arange(24.0).reshape(12, 2))
    imported = ("mvemo", "cache", "import", tmp_path / "f.h5", tmp_path / "x.npy")
    options = ("--modality", "audio", "--manifest", manifest)
    assert "needs a name, such as vggish" in error_of(capsys, *imported, *options)


# Words of a command (manifest m, folder tmp), and a part of its only line.
EXTRACT, STUDY = "extract {m} --profile paper --nets cnn", "study recipes no.csv --out o --net"
REFUSED = [
    ("fuze", "unknown command 'fuze': did you mean fuse?"),
    ("extract {m} --set nets.i3d.lr=fast", "--set nets.i3d.lr=fast: nets.i3d.lr: expected a"),
    ("extract {m} --set extract.embed=3 --set nets.i3d.lr=1", "--set extract.embed=3: extract."),
    ("extract {m} --set folds", "--set folds: write it as key=value"),
    ("extract {m} --protocol none", "--protocol none: extract.protocol: expected one of"),
    ("extract {m} --profile nowhere", "'nowhere': expected a file or one of best, c17, demo, pap"),
    ("extract {m} --nets i4d", "--nets i4d: extract.nets: unknown net 'i4d'"),
    ("extract {m} --nets {empty}", "extract.nets is empty"),
    ("extract {m} --nets c3d,c3d", "extract.nets repeats 'c3d'"),
    (f"{EXTRACT} --folds 50", "50 folds"),
    (f"{EXTRACT} --root {{tmp}}/none", "none of its 12 media files is in {tmp}/none, for example"),
    (f"{EXTRACT} --weights i3d={{m}}", "this run does not use i3d: expected one of cnn"),
    ("extract {m} --weights c3d=nowhere.npz", "there is no file nowhere.npz"),
    ("extract {m} --weights nowhere.npz", "write it as NET=FILE"),
    ("extract --protocol frozen --nets i3d", "'mvemo weights get i3d', give --weights i3d=FILE"),
    (
        "extract {m} --protocol frozen --nets hf:{tmp}/n@1",
        "{tmp}/n: the folder of the encod",
    ),
    ("extract {m} --workers 0", "'--workers': 0 is not in the range x>=1."),
    ("extract {m} --plan --shard 1/2", "--plan covers the whole run: leave out --shard"),
    ("extract {m} --backend dask", "must be given together: add --scheduler ADDRESS"),
    ("extract {m} --scheduler tcp://a:1", "must be given together: add --backend dask"),
    # As a variable that is not set leaves it.
    ("extract {m} --out {empty}", "'--out': the path is empty: give a file or folder"),
    ("predict {m} {empty}", "the path is empty: give a file or folder"),
    ("compare {empty} {m}", "the path is empty: give a file or folder"),
    ("embed {empty} --out {tmp}/x.csv", "the path is empty: give a file or folder"),
    ("similar {empty} {tmp}", "the path is empty: give a file or folder"),
    ("models {empty}", "the path is empty: give a file or folder"),
    ("predict {m} --model {empty}", "the path is empty: give a file or folder"),
    ("weights get {empty}", "no package with weights of '' is known"),
    ("extract {m} --out {m}/features.h5", "{m} is a file, not a folder"),
    ("extract clips.csv --out {tmp}/file/x.h5", "{tmp}/file is a file, not a folder"),
    ("fuse {m} --final --song-level", "--final cannot be combined with --song-level"),
    ("fuse {m} --final --permute-labels", "--final cannot be combined with --permute-labels"),
    ("fuse {m} --degradations {m}", "--degradations {m}: needs a model: add --final"),
    ("cv {m} --models ,", "--models ',': expected at least one name"),
    ("cv {m}", "{m}: expected a feature cache (HDF5 file), got another file"),
    ("labels {m} --models ,", "--models ',': expected at least one name"),
    ("predict song.mp3 --csv {tmp}/no/such/x.csv", "folder {tmp}/no/such does not exist"),
    ("predict song.mp3 --csv {tmp}", "is a directory"),
    ("predict song.mp3 --window 5", "mvemo: --window 5.0 needs a timeline: add --timeline"),
    ("predict song.mp3 --timeline-to 5", "--timeline-to 5 needs a timeline: add --timeline"),
    ("predict song.mp3 --relative --timeline", "leave out --relative or --timeline"),
    ("predict song.mp3 --cache x.h5 --timeline", "leave out --cache or --timeline"),
    ("predict song.mp3 --json --jsonl", "--json, --jsonl: expected one of them, got both"),
    ("predict song.mp3 --jobs 2 --timeline", "--jobs 2 cannot be combined with --timeline"),
    ("predict song.mp3 --shard 1/2 --plan", "--shard 1/2 cannot be combined with --plan"),
    ("predict song.mp3 --shard 1/2 --cache x.h5", "--shard 1/2 cannot be combined with --cache"),
    ("predict song.mp3 --shard 3/2", "--shard 3/2: expected 1/2 to 2/2"),
    ("predict song.mp3 --scheduler tcp://x:1", "must be given together: add --backend dask"),
    # Before a model or a file is looked for.
    ("predict song.mp3 --device cude", "unknown --device 'cude'; expected auto, cpu, cuda, cuda:N"),
    ("explain {tmp}/file --device cuda:99", "device is 'cuda:99', but torch does not find it"),
    (f"{STUDY} hf:{{tmp}}/nowhere", "no.csv: no such file"),
    (f"{STUDY} hf:a,hf:b", "--net 'hf:a,hf:b': expected only one net"),
    (f"{STUDY} vgg", "unknown net 'vgg'"),
    *(
        (f"{name} https://example.org/a.mp3", "a.mp3: URLs are not supported: download")
        for name in ("predict", "explain", "extract", "fuse")
    ),
]


@pytest.mark.parametrize(("command", "line"), REFUSED, ids=[command for command, _ in REFUSED])
def test_a_wrong_option_is_named_in_one_line(command, line, manifest, tmp_path, capsys):
    (tmp_path / "file").touch()
    names = {"m": manifest, "tmp": tmp_path, "empty": ""}
    words = [word.format(**names) for word in command.split()]
    assert line.format(**names) in error_of(capsys, "mvemo", *words)


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ("--workers 9999", "note: --workers 9999: this machine has "),
        ("--protocol frozen --seed 4", "note: --seed 4 changes nothing: frozen nets are not tr"),
    ],
)
def test_options_that_change_nothing_are_told_of(options, note, manifest, tmp_path, capsys):
    run("mvemo", "extract", manifest, "--root", tmp_path / "none", *options.split())
    assert note in capsys.readouterr().err


def test_a_prescribed_split_is_asked_about(manifest, tmp_path, capsys, program):
    command = ("mvemo", "extract", manifest, "--nets", "music1d", "--work", tmp_path / "w")
    for protocol in ("crossfit", "shared"):
        line = error_of(capsys, *command, "--protocol", protocol)
        assert f"the protocol {protocol} makes folds" in line
        assert "--protocol holdout" in line
        assert "--folds 6" in line
    own = (manifest, "--out", tmp_path / "o", "--work", tmp_path / "w")
    line = error_of(capsys, "mvemo", "study", "losses", *own)
    assert "prescribes a split, but this study makes folds: mvemo study j22 and " in line
    assert "--folds 6 ignores the split" in line
    # J22's whole experiment has one split; they end at the media, which are empty.
    asked = ("losses", "--folds", 3), ("losses", "--set", "extract.folds=3"), ("j22",)
    for study, *options in asked:
        said = program("mvemo", "study", study, *own, *options, ends=2).err
        assert "makes folds" not in said
        assert "no clip could be decoded" in said
    line = error_of(capsys, "mvemo", "study", "j22", *own, "--folds", 3)
    assert "--folds 3: this study uses one split instead of folds: leave out --folds" in line
    # Folds that are asked for are made.
    said = program(*command, "--folds", 3, ends=2).err
    assert "the manifest's split is not used" in said
    assert "no clip could be decoded" in said


def test_why_a_seed_changes_no_fold_of_stage_two(tmp_path, capsys):
    table = make_table(24, 2, classes=("a", "b"))
    prescribed = replace(table, fold_seed=-1)
    split = replace(table, splits=np.where(table.folds == 0, 2, 0), folds=np.full(24, -1), k=0)

    def why(table, folds=None, file=None, make=frozen_cache):
        with open_cache(make(tmp_path / "f.h5", table, names=("music1d",))) as cache:
            return _folds_without_seed(cache, EvaluationSettings(folds=folds), file)

    assert why(table) == why(prescribed, 3) == ""
    assert why(prescribed) == "they are prescribed"
    assert why(split) == "the clips have one prescribed split"
    assert why(table, file=Path("folds.csv")) == "they are read from folds.csv"
    assert why(table, make=crossfit_cache).startswith("they are the folds that the nets were tra")
    path = crossfit_cache(tmp_path / "c.h5", table, names=("music1d",))
    assert run("mvemo-cv", path, "--out", tmp_path / "out", "--seed", 3, *CV) == 0
    assert "note: --seed 3 does not change the folds: they are the" in capsys.readouterr().err
    overrides = "--set", "fuse.C=0.1", "--set", "fuse.D=1"
    assert "--set fuse.D=1: fuse.D: unknown setting" in error_of(
        capsys, "mvemo-cv", path, *overrides
    )


@pytest.mark.parametrize(
    ("command", "option", "why"),
    [
        ("extract --nets cnn", "--set extract.fold_seed=5 --folds 2", ""),
        ("extract --nets cnn", "--set extract.fold_seed=5 --folds {f}", "they are read from {f}"),
        ("study losses --out o", "--set extract.fold_seed=5 --folds {f}", "they are read from {f}"),
        ("study losses --out o", "--seed 0 --folds {f}", "they are read from {f}"),
        ("study j22 --out o", "--seed 3", "the clips have one prescribed split"),
    ],
)
def test_a_seed_of_folds_that_changes_none_is_told_of(
    command, option, why, manifest, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write_folds(folds_of(read_manifest(manifest, media=False), 2), tmp_path / "f.csv")
    words = [*command.split(), *option.format(f="f.csv").split(), manifest, "--work", "w"]
    run("mvemo", *words)
    notes = [line for line in capsys.readouterr().err.splitlines() if "changes no" in line]
    name = option.split(" --folds")[0].removeprefix("--set ")
    assert notes == ([f"note: {name} changes no fold: {why.format(f='f.csv')}"] if why else [])


def test_a_full_disk_is_told_first(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    line = error_of(capsys, "mvemo", "predict", "song.mp3", "--csv", tmp_path / "x.csv")
    assert f"no space left on the disk of {tmp_path}" in line


def test_a_folder_that_is_not_asked_for_is_not_checked(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timelines").touch()
    assert "none.mp3: no such file" in program("mvemo", "predict", "none.mp3", ends=2).out
    (tmp_path / "some.mp3").touch()
    assert "is a file" in program("mvemo", "predict", "some.mp3", "--timeline", ends=2).err
