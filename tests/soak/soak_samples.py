"""Small whole files for every reader: caches, manifests, predictions, arrays, weights, media."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from mvemo.cache import CacheWriter, ClipTable, FeatureSpec

CLASSES = ("calm", "happy", "tense")
DIM = 12


def table(n: int) -> ClipTable:
    """Clips in groups of two, in three folds."""
    group = np.arange(n) // 2
    return ClipTable(
        name="soak",
        task="multiclass",
        classes=CLASSES,
        clip_ids=tuple(f"clip{i:03d}" for i in range(n)),
        groups=tuple(f"g{i:03d}" for i in group),
        labels=group // 3 % 3,
        folds=group % 3,
        k=3,
        fold_seed=0,
        digest="0" * 64,
    )


def specs(clips: ClipTable) -> list[FeatureSpec]:
    """A vector, a sequence, and a net for each fold."""
    vector = FeatureSpec("effnet", "audio", "vector", DIM, "net:effnet", 1, {}, "w", "frozen")
    mel = FeatureSpec("mel", "audio", "sequence", 4, "mel", 1, {"n_mels": 4})
    nets = [
        replace(
            vector,
            name="c3d",
            modality="video",
            protocol="crossfit",
            weights=f"w{fold}",
            fold=fold,
            trained_on=tuple(
                c for c, f in zip(clips.clip_ids, clips.folds, strict=True) if f != fold
            ),
        )
        for fold in range(clips.k)
    ]
    return [vector, mel, *nets]


def write_cache(path: Path, n: int = 36, names: tuple[str, ...] = ("effnet", "mel", "c3d")) -> None:
    """A cache whose features tell the classes apart."""
    clips = table(n)
    with CacheWriter(path, clips, provenance={"command": "soak"}) as writer:
        for spec in specs(clips):
            if spec.name not in names:
                continue
            for i, clip in enumerate(clips.clip_ids):
                draw = np.random.default_rng([int(spec.digest[:8], 16), i])
                shape = (spec.dim,) if spec.kind == "vector" else (3 + i % 4, spec.dim)
                row = draw.standard_normal(shape).astype(np.float32)
                row[..., int(clips.labels[i])] += 2
                writer.put(spec, clip, spec.key(clip), row)
        writer.fail(clips.clip_ids[0], "decode:video", "no video stream")


def write_arrays(folder: Path, n: int = 36) -> list[Path]:
    """One array in each form that is imported."""
    import h5py

    values = np.random.default_rng(0).standard_normal((n, 5))
    ids = list(table(n).clip_ids)
    paths = [folder / f"theirs{ending}" for ending in (".npy", ".npz", ".h5", ".csv")]
    np.save(paths[0], values)
    np.savez(paths[1], values=values, clip_ids=np.array(ids))
    with h5py.File(paths[2], "w") as file:
        file["values"] = values
        file.create_dataset("clip_ids", data=ids, dtype=h5py.string_dtype())
    with paths[3].open("w", newline="") as text:
        lines = csv.writer(text)
        lines.writerow(["clip_id", *(f"x{i}" for i in range(5))])
        lines.writerows([clip, *row] for clip, row in zip(ids, values.tolist(), strict=True))
    return paths


def write_manifest(path: Path, n: int = 12) -> None:
    """A manifest with every column, whose media are not there."""
    head = "# mvemo manifest 1\n# name: soak\n# classes: calm, tense\n# root: .\n"
    rows = "".join(
        f"c{i},f/{i}.wav,{('calm', 'tense')[i % 2]},g{i // 2},{i * 0.5},2.0,{i // 2 % 3},train\n"
        for i in range(n)
    )
    path.write_text(f"{head}clip_id,path,label,group,start,duration,fold,split\n{rows}")


def write_predictions(path: Path, n: int = 12) -> None:
    """Predictions of two models in three folds."""
    lines = ["clip_id,group,fold,model,label,p_calm,p_tense"]
    for i in range(n):
        for model in ("a", "b"):
            label = ("calm", "tense")[i % 2]
            lines.append(f"c{i},g{i // 2},{i // 2 % 3},{model},{label},0.75,0.25")
    path.write_text("\n".join(lines) + "\n")


def write_weights(folder: Path) -> list[Path]:
    """A state dict in each form that is read."""
    import h5py
    import torch

    draw = np.random.default_rng(0)
    arrays = {"conv.weight": draw.standard_normal((4, 3)).astype(np.float32), "bias": np.ones(4)}
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    paths = [folder / f"weights{ending}" for ending in (".pth", ".tar", ".npz", ".h5")]
    torch.save({"state_dict": tensors}, paths[0])
    torch.save(tensors, paths[1], _use_new_zipfile_serialization=False)
    np.savez_compressed(paths[2], **arrays)
    with h5py.File(paths[3], "w") as file:
        for name, value in arrays.items():
            file.create_dataset(name, data=value, compression="gzip")
    return paths


def write_sounds(folder: Path, n: int, seconds: float = 1.0) -> Path:
    """WAV files in folders of two classes; returns a manifest of them."""
    import soundfile

    time = np.arange(int(8000 * seconds)) / 8000
    lines = ["path,label,group"]
    for i in range(n):
        path = folder / ("calm", "tense")[i % 2] / f"{i:04d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * (220 + i % 400) * time), 8000)
        lines.append(f"{path.relative_to(folder)},{path.parent.name},g{i // 2}")
    manifest = folder / "clips.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest
