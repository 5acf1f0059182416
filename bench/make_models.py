"""Make the models in the box from the shared data: only coefficients go into the project.

    python bench/make_models.py all --quadrants 4Q --work models

Each step is a command that this prints and that can be given by hand. What a model's card says
beyond figures is in ``bench/models/NAME.toml``. The public weights are fetched where they are
not here. ``--quadrants`` is the folder of the 4Q set (Panda et al. 2018). All models take about an
hour on two cores.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from mvemo.manifests import Manifest, read_manifest
from mvemo.pipeline.studies.degradations import degradation

Row = dict[str, str]
ROOT = Path(__file__).resolve().parents[1]
BOX = ROOT / "pipeline" / "models"
# Files often have nothing above 8 kHz (telephones, old codecs, 22 kHz archives), where the
# models' own clips have something, or the other way about: descriptors look below it.
DESCRIPTORS = ("sr=16000", "n_fft=1024", "hop_length=512", "n_bands=5")
EXTRACT = ["--profile", "pretrained"]
EXTRACT += [word for setting in DESCRIPTORS for word in ("--set", f"descriptors.{setting}")]

MUSICNN = ("--set", "nets.musicnn.options.outputs=units,tags")
# Copies of some training clips for the alarm, and how many clips of each kind are copied.
DEGRADATIONS = (
    "mp3-64k",
    "aac-96k",
    "opus-64k",
    "vorbis-96k",
    "level-15",
    "lowpass-7k",
    "excerpt-12",
)
N_DEGRADATIONED = {"4q": 36, "soundtracks": 24, "mve": 20}
# What the groups of the model `songs` are called, by folder.
KINDS = {"4q": "pop and rock", "soundtracks": "film music", "mve": "music videos"}
# Folder of singing without accompaniment, which no model is made of; number of its clips, and of
# each other set that a model is not made of, whose distance the card states.
SUNG = "ravdess_song"
N_FOREIGN = 40
# Signs of valence and arousal of quadrants and classes.
SIGNS = {
    **{"Q1": (1, 1), "Q2": (-1, 1), "Q3": (-1, -1), "Q4": (1, -1)},
    **{"Excited": (1, 1), "Fear": (-1, 1), "Tension": (-1, 1), "Sad": (-1, -1)},
    **{"Relaxation": (1, -1), "Neutral": (0, 0)},
}
# Standard deviation of each set's ratings in `songs`, around the middle of the scale.
DEVIATION = 0.5
# Centre of valence, energy and tension in Soundtracks: their ratings end at 7, and the clips that
# Set 2 shares have its middle there.
FILM_CENTRE = 4.0
FILM_TARGETS = (
    *("valence=valence", "energy=energy", "tension=tension", "anger=anger", "fear=fear"),
    *("happiness=happy", "sadness=sad", "tenderness=tender"),
)

# Columns of the manifest (ours=theirs), options of its import, of extract, and of fuse.
MODELS: dict[str, dict[str, tuple[str, ...]]] = {
    "songs": {
        "columns": ("group=kind", "valence=valence", "arousal=arousal"),
        "import": ("--task", "regression", "--scale=-1..1"),
        "extract": ("--nets", "musicnn", "--folds", "3", *MUSICNN),
        # The penalty is the one at which left-out sets are predicted best, on average. Three groups
        # are too few to fit second layers.
        "fuse": (
            *("--folds", "3", "--set", "fuse.choose_C=false", "--set", "fuse.C=0.001"),
            *("--set", "fuse.stacked=false", "--set", "fuse.late=false"),
        ),
    },
    "film-music": {
        "columns": ("group=album_group", *FILM_TARGETS),
        "import": ("--task", "regression", "--scale=1..9"),
        "extract": (
            *("--nets", "musicnn"),
            *("--set", "nets.musicnn.options.outputs=units,deviation,front,tags"),
        ),
        "fuse": ("--folds", "6"),
    },
    "music-video": {
        "columns": ("group=source_group",),
        "import": (),
        # I3D would take longer than all else together, for a point or none.
        "extract": ("--nets", "musicnn,effnet", *MUSICNN),
        # The kernel head would add the vectors of all training clips to the model's file.
        "fuse": ("--folds", "6", "--set", "fuse.kernel=false"),
    },
}


def main() -> None:
    """Make one model, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[*MODELS, "all"])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--quadrants", type=Path, required=True, help="Folder of the 4Q set.")
    parser.add_argument("--work", type=Path, required=True, help="Folder to work in; is kept.")
    options = parser.parse_args()
    sets = options.work / "sets"
    sets.mkdir(parents=True, exist_ok=True)
    for name in (*KINDS, SUNG):
        found = options.quadrants if name == "4q" else options.data / name
        if not (sets / name).exists():
            (sets / name).symlink_to(found.resolve())
    for name in MODELS if options.name == "all" else [options.name]:
        make(name, options.work)


def make(name: str, work: Path) -> None:
    """Make one model in a folder of its own, and copy it into the box."""
    recipe, folder = MODELS[name], work / name
    folder.mkdir(parents=True, exist_ok=True)
    # Names without folders: commands are recorded in the model.
    shutil.copy(ROOT / "bench" / "models" / f"{name}.toml", folder / "about.toml")
    sets = os.path.relpath(work / "sets", folder)
    rows = TABLES[name](work / "sets")
    _write(folder / "index.csv", rows)
    columns = [word for column in recipe["columns"] for word in ("--column", column)]
    named = ["--column", "path=file", "--name", name, "--root", sets, "--out", "clips.csv"]
    _run(folder, "manifest", "import", "index.csv", *columns, *recipe["import"], *named, "--force")
    settings = [*EXTRACT, *recipe["extract"]]
    _run(folder, "extract", "clips.csv", *settings)
    clips = read_manifest(folder / "clips.csv", media=False)
    _write(folder / "degraded.csv", _degraded(clips, work / "sets", work / "degraded"))
    named = ["--column", "path=file", "--column", "clip_id=name", "--root", "../degraded"]
    named += ["--out", "degraded-clips.csv", *recipe["import"], "--force"]
    _run(folder, "manifest", "import", "degraded.csv", *columns, *named)
    sound = [word.replace(",effnet", "") for word in settings]
    _run(folder, "extract", "degraded-clips.csv", *sound, "--work", "degraded")
    final = ["--final-to", "model", "--about", "about.toml"]
    final += ["--degradations", "degraded/features.h5", *recipe["fuse"]]
    _run(folder, "fuse", "work/features.h5", *final)
    shutil.rmtree(BOX / name, ignore_errors=True)
    shutil.copytree(folder / "model", BOX / name)
    _finish_record(BOX / name / "model.json", _unlike(clips, work))
    _run(folder, "models", str(BOX / name))


def _songs(sets: Path) -> list[Row]:
    """Return the clips of all sets, with ratings that have the same deviation in each set."""
    rows: list[Row] = []
    for name, kind in KINDS.items():
        if name == "4q":
            table = _table(sets / name / "panda_dataset_taffc_annotations.csv")
            files = [f"{row['Quadrant']}/{row['Song']}.mp3" for row in table]
            values = [SIGNS[row["Quadrant"]] for row in table]
        else:
            table = _table(sets / name / "index.csv")
            files = [row["file"] for row in table]
            film = name == "soundtracks"
            values = [_film_place(row) if film else SIGNS[row["label"]] for row in table]
        ratings = np.array(values, dtype=np.float64)
        ratings *= DEVIATION / np.sqrt(np.square(ratings).mean(axis=0))
        rows += [
            {"file": f"{name}/{file}", "kind": kind, "valence": f"{v:.4f}", "arousal": f"{a:.4f}"}
            for file, (v, a) in zip(files, ratings, strict=True)
        ]
    return rows


def _film_place(row: Row) -> tuple[float, float]:
    """Return valence and arousal, the mean of energy and tension, from their centre."""
    arousal = (float(row["energy"]) + float(row["tension"])) / 2
    return float(row["valence"]) - FILM_CENTRE, arousal - FILM_CENTRE


def _one_set(name: str, sets: Path) -> list[Row]:
    """Return the clips of a set; without the column ``split``, folds are made of all clips."""
    rows = _table(sets / name / "index.csv")
    return [
        {key: f"{name}/{value}" if key == "file" else value for key, value in row.items()}
        for row in rows
    ]


def _degraded(clips: Manifest, sets: Path, target: Path) -> list[Row]:
    """Write degraded copies of some clips' sound; return their rows, the labels of the clips."""
    target.mkdir(exist_ok=True)
    table = {row["file"]: row for row in _table(target.parent / clips.name / "index.csv")}
    rows = []
    for name, count in N_DEGRADATIONED.items():
        own = [clip for clip in clips.clips if clip.path.startswith(f"{name}/")]
        order = np.random.default_rng(0).permutation(len(own))[:count]
        for clip in (own[i] for i in np.sort(order)):
            for degradation_name in DEGRADATIONS:
                # Files of one clip and degradation are shared by all models.
                stem = hashlib.sha256(f"{clip.path} {degradation_name}".encode()).hexdigest()[:16]
                found = next(target.glob(f"{stem}.*"), None)
                path = found or degradation(
                    sets / clip.path, degradation_name, target / f"{stem}.x"
                )
                label = {**table[clip.path], "file": path.name}
                rows.append({**label, "name": f"{clip.clip_id}@{degradation_name}"})
    return rows


def _unlike(clips: Manifest, work: Path) -> dict[str, str]:
    """Return a sentence for each set that a model is not made of: does its alarm tell the clips?"""
    folder, sets, told = work / clips.name, work / "sets", {}
    record = json.loads((folder / "model" / "model.json").read_text(encoding="utf-8"))
    for name, kind in {**KINDS, SUNG: "singing without accompaniment"}.items():
        if any(clip.path.startswith(f"{name}/") for clip in clips.clips):
            continue
        files = [p for p in (sets / name).rglob("*") if p.suffix in (".mp3", ".ogg", ".mp4")]
        order = np.random.default_rng(0).permutation(len(files))[:N_FOREIGN]
        chosen = [{"path": str(sorted(files)[i].resolve())} for i in np.sort(order)]
        _write(folder / "foreign.csv", chosen)
        _run(folder, "predict", "foreign.csv", "--model", "model", "--csv", f"foreign-{name}.csv")
        ranks, called = [], []
        for row in _table(folder / f"foreign-{name}.csv"):
            if row["unlikeness"]:
                predictor = row["model"].rpartition("/")[2]
                ratio, usual = float(row["unlikeness"]), record["facts"]["alarm"][predictor]
                ranks.append(np.interp(ratio, usual["usual"], np.linspace(0, 1, 101)))
                called.append(ratio > 1)
        told[kind] = (
            f"{np.mean(called):.0%} of {len(called)} clips are called unlike; AUROC against clips "
            f"like its own {np.mean(ranks):.2f}"
        )
    return told


TABLES: dict[str, Callable[[Path], list[Row]]] = {
    "songs": _songs,
    "film-music": partial(_one_set, "soundtracks"),
    "music-video": partial(_one_set, "mve"),
}


def _table(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k != "split"} for row in csv.DictReader(file)]


def _write(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _finish_record(path: Path, unlike: dict[str, str]) -> None:
    """Add what the alarm was measured on; leave out earlier runs, and paths of the machine."""
    record = json.loads(path.read_text(encoding="utf-8"))
    stage_one = record["facts"]["provenance"]["stage_one"]
    stage_one.pop("history", None)
    stage_one["manifest"] = {name: stage_one["manifest"][name] for name in ("digest", "name")}
    record["facts"]["about"]["unlike"] = unlike
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _run(folder: Path, *arguments: str) -> None:
    print("$", shlex.join(["mvemo", *arguments]), flush=True)
    subprocess.run(["mvemo", *arguments], cwd=folder, check=True)


if __name__ == "__main__":
    main()
