"""The commands whose answers must not change, each step on small sets that it makes.

Only commands and files that a user sees are used, so that the steps outlive any change of
the code behind them.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from golden_texts import json_text, lasting_text, page_text
from numpy.typing import NDArray

CLASSES = ("angry", "calm", "happy", "sad")
# Narrow nets that read a second of sound, for runs of seconds.
TINY = (
    *("extract.folds=2", "descriptors.sr=8000", "descriptors.n_mels=16", "descriptors.n_mfcc=8"),
    *("descriptors.n_fft=512", "descriptors.hop_length=256"),
    *("descriptors.spectrogram_n_fft=256", "descriptors.spectrogram_hop_length=128"),
    *(
        f"nets.{net}.{key}"
        for net in ("cnn", "lightcnn", "crnn", "rnn", "speccnn", "music1d")
        for key in ("width=0.1", "epochs=2", "patience=2")
    ),
    *(f"nets.{net}.options={{n_frames=24}}" for net in ("cnn", "lightcnn", "rnn")),
    "nets.crnn.options={n_frames=24, spectrogram_frames=48, bands=16}",
    "nets.speccnn.options={n_frames=48, bands=16}",
    "nets.music1d.options={seconds=1.0}",
)
TINY_OPTIONS = tuple(word for setting in TINY for word in ("--set", setting))
STUDIES = {
    "baselines": ("--runs", "2", "--rnn-runs", "1"),
    "convnets": ("--nets", "cnn,lightcnn"),
    "iterations": ("--net", "cnn", "--iterations", "4"),
    "j22": ("--nets", "cnn,crnn", "--seconds", "0.5", "--iterations", "4", "--first", "1"),
    "losses": ("--net", "cnn"),
    "optimizers": ("--nets", "music1d"),
    "protocols": ("--nets", "cnn", "--frozen", "musicnn"),
    "recipes": ("--net", "music1d", "--parts", "probe", "--set", "nets.music1d.probe=true"),
    "segments": ("--nets", "cnn", "--seconds", "0.4,0.8", "--first", "0"),
    "tags": ("--nets", "speccnn"),
}


@dataclass(frozen=True)
class Recorder:
    """Runs `mvemo` in a work folder and keeps what it answers in a golden folder."""

    program: str
    work: Path
    golden: Path
    digests: bool

    def run(self, name: str, *arguments: str | Path) -> str:
        """Run a command that must succeed; keep its output as ``name``.txt if that is not empty."""
        done = subprocess.run(
            [self.program, *map(str, arguments)],
            cwd=self.work,
            env=os.environ | {"COLUMNS": "100", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise SystemExit(
                f"{name} ({arguments[0]}): exit code {done.returncode}\n{done.stdout}{done.stderr}"
            )
        if name:
            # Lines on stderr are about progress; how many there are depends on the machine.
            self.keep(f"{name}.txt", done.stdout)
        return done.stdout

    def run_json(self, name: str, *arguments: str | Path) -> Any:
        """Run a command that prints JSON, keep it as ``name``.json, and return it."""
        text = self.run("", *arguments)
        self.keep(f"{name}.json", json_text(text))
        return json.loads(text)

    def keep_file(self, name: str, file: str | Path) -> None:
        """Keep a file of the work folder that a command wrote."""
        self.keep(name, (self.work / file).read_text())

    def keep(self, name: str, text: str) -> None:
        """Write a golden file."""
        path = self.golden / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lasting_text(text, self.work, digests=self.digests))

    def keep_run(self, name: str, folder: Path) -> None:
        """Keep the JSON, CSV and HTML files of a run's folder."""
        readers = {".json": json_text, ".csv": str, ".html": page_text}
        for path in sorted(folder.iterdir()):
            if path.suffix in readers:
                text = readers[path.suffix](path.read_text())
                self.keep(f"{name}/{path.name}{'.txt' if path.suffix == '.html' else ''}", text)


def record_help(recorder: Recorder) -> None:
    """Keep ``--help`` of each command."""
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        words = waiting.pop()
        text = recorder.run("help/" + "-".join(("mvemo", *words)), *words, "--help")
        commands = text.partition("\nCommands:\n")[2]
        waiting += [(*words, line.split()[0]) for line in commands.splitlines() if line[2:3] > " "]


def record_made(recorder: Recorder) -> None:
    """Keep stage two's answers on made features of each task."""
    for task in ("multiclass", "multilabel", "regression"):
        folder = recorder.work / task
        folder.mkdir()
        name, manifest = f"made/{task}", folder / "clips.csv"
        table, features = make_features(folder, task)
        options = ("--task", task, "--no-media", "--out", manifest)
        recorder.run(f"{name}/import", "manifest", "import", table, *options)
        recorder.run(f"{name}/check", "manifest", "check", manifest, "--no-media")
        for feature, file in features.items():
            modality = "audio" if feature == "sound" else "video"
            options = ("--manifest", manifest, "--feature", feature, "--modality", modality)
            words = ("cache", "import", f"{task}.h5", file, *options)
            recorder.run(f"{name}/import-{feature}", *words)
        recorder.run(f"{name}/info", "cache", "info", f"{task}.h5")
        recorder.run(f"{name}/fuse", "fuse", f"{task}.h5", "--out", f"{task}/out", "--folds", "3")
        recorder.keep_run(f"{name}/out", folder / "out")
        predictions = ("--predictions", f"{task}/out/predictions.csv", "--task", task)
        recorder.run(f"{name}/report", "report", *predictions, "--out", f"{task}/theirs")
        recorder.run(f"{name}/compare", "compare", f"{task}/out", f"{task}/theirs")


def record_sounds(recorder: Recorder) -> None:
    """Keep stage one's descriptors of made sounds, each as its mean over all frames."""
    make_sounds(recorder.work / "sounds")
    descriptors = ("mel", "mfcc", "contrast", "chroma", "f0", "formants", "rp")
    listed = ("--set", f"extract.descriptors={json.dumps(descriptors)}")
    words = ("sounds/clips.csv", *TINY_OPTIONS, "--nets", "cnn", "--protocol", "shared", *listed)
    recorder.run("", "extract", *words)
    recorder.run("sounds/info", "cache", "info", "work/features.h5")
    for name in descriptors:
        options = ("--feature", name, "--out", f"{name}.npz")
        recorder.run("", "cache", "export", "work/features.h5", *options)
        with np.load(recorder.work / f"{name}.npz") as arrays:
            rows = [f"{key} {array.shape}" + _statistics(array) for key, array in arrays.items()]
        recorder.keep(f"sounds/{name}.txt", "\n".join(rows))


def _statistics(array: NDArray[Any]) -> str:
    if array.dtype.kind != "f":
        return ""
    columns = array.reshape(len(array), -1)
    means = np.nanmean(columns, axis=0), np.nanstd(columns, axis=0)
    return "".join(f" {value:.5g}" for values in means for value in values)


def record_studies(recorder: Recorder) -> None:
    """Keep the tables of each study on made sounds."""
    make_sounds(recorder.work / "sounds")
    options = ("--task", "multilabel", "--out", "sounds/tags.csv")
    recorder.run("", "manifest", "import", "sounds/table.csv", *options)
    for study, arguments in STUDIES.items():
        out = recorder.work / study
        manifest = "sounds/tags.csv" if study == "tags" else "sounds/clips.csv"
        folders = ("--out", out, "--work", recorder.work / "study-work")
        words = ("study", study, manifest, *folders, *arguments, *TINY_OPTIONS)
        recorder.run(f"studies/{study}", *words)
        recorder.keep_run(f"studies/{study}", out)


def record_demo(recorder: Recorder) -> None:
    """Keep the whole path on the demo set: digests, report, a model and its predictions."""
    recorder.run("", "demo", "demo")
    recorder.run("demo/info", "cache", "info", "demo/work/features.h5")
    recorder.keep_run("demo/out", recorder.work / "demo" / "out")


def record_boxed(recorder: Recorder) -> None:
    """Keep predictions and timelines of a fixed sound by each model that comes with mvemo."""
    make_sounds(recorder.work / "sounds", seconds=30.0, clips_per_class=1)
    clip = "sounds/calm0.wav"
    recorder.run("boxed/models", "models")
    (recorder.work / "why").mkdir()
    page = ("--to", recorder.work / "why/page.html")
    recorder.run("", "explain", clip, "--step", "5", "--width", "5", *page)
    recorder.keep_run("boxed/explain", recorder.work / "why")
    for model in ("music-video", "film-music"):
        recorder.run(f"boxed/{model}", "models", model)
        recorder.run(f"boxed/{model}-json", "predict", clip, "--model", model, "--json")
        folder = recorder.work / f"timeline-{model}"
        timeline = ("--timeline", "--timeline-to", folder)
        recorder.run(f"boxed/{model}-timeline", "predict", clip, "--model", model, *timeline)
        recorder.keep_run(f"boxed/{model}-timeline", folder)


def make_features(folder: Path, task: str, n: int = 60) -> tuple[Path, dict[str, Path]]:
    """Write a manifest of clips in groups of two, and two features that tell their labels."""
    rng = np.random.default_rng([1, len(task)])
    hidden = np.repeat(rng.normal(size=(n // 2, 3)), 2, axis=0)
    columns = {
        "multiclass": {"label": [CLASSES[i] for i in hidden.argmax(axis=1)]},
        "multilabel": {f"tag {t}": (hidden[:, t] > t / 2).astype(int) for t in range(3)},
        "regression": {t: np.tanh(hidden[:, i] / 2) for i, t in enumerate(("valence", "arousal"))},
    }[task]
    ids, groups = [f"clip {i}" for i in range(n)], [f"song {i // 2}" for i in range(n)]
    header = ("clip_id", "path", "group", *columns)
    files = [f"media/{i}.wav" for i in range(n)]
    rows = list(zip(ids, files, groups, *columns.values(), strict=True))
    classes = ", ".join(columns) if task != "multiclass" else ", ".join(CLASSES)
    write_csv(folder / "table.csv", header, rows, first=f"# classes: {classes}\n")
    features = {}
    for name, noise, n_columns in (("sound", 0.8, 8), ("pictures", 1.2, 6)):
        values = hidden @ rng.normal(size=(3, n_columns)) + noise * rng.normal(size=(n, n_columns))
        if name == "pictures":
            values[::15] = np.nan
        features[name] = folder / f"{name}.npy"
        np.save(features[name], values.astype(np.float32))
    return folder / "table.csv", features


def make_sounds(folder: Path, *, clips_per_class: int = 6, seconds: float = 1.0) -> None:
    """Write tones with noise, a pitch for each class, and manifests of classes and of tags."""
    rng, sr = np.random.default_rng(0), 8000
    t = np.arange(int(seconds * sr)) / sr
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(clips_per_class):
        for c, name in enumerate(CLASSES):
            tone = np.sin(2 * np.pi * (300 + 700 * c) * t) + 0.3 * rng.normal(size=len(t))
            write_tone(folder / f"{name}{i}.wav", tone)
            rows.append((f"{name}{i}", f"{name}{i}.wav", f"group {i}", name, int(c > 1), c % 2))
    write_csv(folder / "clips.csv", ("clip_id", "path", "group", "label"), [r[:4] for r in rows])
    tags = [(*row[:3], *row[4:]) for row in rows]
    write_csv(folder / "table.csv", ("clip_id", "path", "group", "positive", "fast"), tags)


def write_tone(path: Path, tone: NDArray[np.float64]) -> None:
    """Write a waveform of 8000 Hz as a WAV file of one loudness."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes((8000 * tone / np.abs(tone).max()).astype("<i2").tobytes())


def write_csv(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[object]], first: str = ""
) -> None:
    """Write a table, under a first line if there is one."""
    with path.open("w", newline="") as file:
        file.write(first)
        csv.writer(file).writerows([header, *rows])
