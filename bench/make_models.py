"""Make the models in the box from the shared data: only coefficients go into the project.

    python bench/make_models.py all --data ../shared/data --work /tmp/models

Each step is a command that this prints and that can be given by hand. What a model's card says
beyond figures is in ``bench/models/NAME.toml``. The public weights are fetched where they are
not here; each model takes some ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BOX = ROOT / "pipeline" / "models"
# Files often have nothing above 8 kHz (telephones, old codecs, 22 kHz archives), where the
# models' own clips have something, or the other way about: descriptors look below it.
DESCRIPTORS = ("sr=16000", "n_fft=1024", "hop_length=512", "n_bands=5")
EXTRACT = ["--profile", "pretrained"]
EXTRACT += [word for setting in DESCRIPTORS for word in ("--set", f"descriptors.{setting}")]

# Folder of the data, column of the group, columns of the targets (ours=theirs; none: classes),
# scale of the ratings, options of extract.
MODELS = {
    "film-music": {
        "data": "soundtracks",
        "group": "album_group",
        "targets": [
            *("valence=valence", "energy=energy", "tension=tension", "anger=anger", "fear=fear"),
            *("happiness=happy", "sadness=sad", "tenderness=tender"),
        ],
        "scale": "1..9",
        "extract": [
            *("--nets", "musicnn"),
            *("--set", "nets.musicnn.options.outputs=units,deviation,front,tags"),
        ],
    },
    "music-video": {
        "data": "mve",
        "group": "source_group",
        "targets": [],
        # I3D would take longer than all else together, for a point or none.
        "extract": ["--nets", "musicnn,effnet"],
    },
}


def main() -> None:
    """Make one model, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[*MODELS, "all"])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, required=True, help="Folder to work in; is kept.")
    options = parser.parse_args()
    for name in MODELS if options.name == "all" else [options.name]:
        make(name, options.data.resolve(), options.work / name)


def make(name: str, data: Path, work: Path) -> None:
    """Make one model in a folder of its own, and copy it into the box."""
    recipe = MODELS[name]
    work.mkdir(parents=True, exist_ok=True)
    # Names without folders: commands are recorded in the model.
    shutil.copy(ROOT / "bench" / "models" / f"{name}.toml", work / "about.toml")
    folder = data / str(recipe["data"])
    _without_split(folder / "index.csv", work / "index.csv")
    columns = ["path=file", f"group={recipe['group']}", *recipe["targets"]]
    columns = [word for column in columns for word in ("--column", column)]
    if recipe["targets"]:
        columns += ["--task", "regression", "--scale", recipe["scale"]]
    named = ["--name", name, "--root", os.path.relpath(folder, work.resolve())]
    _run(work, "manifest", "import", "index.csv", *columns, *named, "--out", "clips.csv", "--force")
    _run(work, "extract", "clips.csv", *EXTRACT, *recipe["extract"])
    # The kernel head would add the vectors of all training clips to the model's file.
    final = ["--final-to", "model", "--about", "about.toml", "--set", "fuse.kernel=false"]
    _run(work, "fuse", "work/features.h5", "--folds", "6", *final)
    _run(work, "models", "model")
    shutil.rmtree(BOX / name, ignore_errors=True)
    shutil.copytree(work / "model", BOX / name)
    _forget_earlier_runs(BOX / name / "model.json")


def _forget_earlier_runs(path: Path) -> None:
    """Leave out earlier runs on the same features, and paths of the machine."""
    record = json.loads(path.read_text(encoding="utf-8"))
    stage_one = record["facts"]["provenance"]["stage_one"]
    stage_one.pop("history", None)
    stage_one["manifest"] = {name: stage_one["manifest"][name] for name in ("digest", "name")}
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _without_split(source: Path, target: Path) -> None:
    """Copy a table without its column ``split``: folds are made of all clips."""
    with source.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name != "split"]
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _run(folder: Path, *arguments: str) -> None:
    print("$", shlex.join(["mvemo", *arguments]), flush=True)
    subprocess.run(["mvemo", *arguments], cwd=folder, check=True)


if __name__ == "__main__":
    main()
