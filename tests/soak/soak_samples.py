"""Small whole files for every reader: caches, manifests, predictions, arrays, weights, sounds."""

import csv
from dataclasses import replace

import numpy as np
from cache_samples import SEQUENCE, VECTOR, crossfit, put, table

from mvemo.cache import CacheWriter


def write_cache(path, n=36, names=("music1d", "mel", "c3d")):
    """Write a cache of a vector, a sequence and a net for each fold."""
    clips = table(f"c{i}" for i in range(n))
    nets = [replace(crossfit(fold, clips), name="c3d", modality="video") for fold in range(3)]
    with CacheWriter(path, clips, provenance={"command": "soak"}) as writer:
        for spec in (VECTOR, SEQUENCE, *nets):
            for clip in clips.clip_ids if spec.name in names else ():
                put(writer, spec, clip)
        writer.fail("c0", "decode:video", "no video stream")


def write_arrays(folder, n=36):
    """Write one array in each form that is imported."""
    import h5py

    values, ids = np.random.default_rng(0).standard_normal((n, 5)), [f"c{i}" for i in range(n)]
    paths = [folder / f"theirs{ending}" for ending in (".npy", ".npz", ".h5", ".csv")]
    np.save(paths[0], values)
    np.savez(paths[1], values=values, clip_ids=np.array(ids))
    with h5py.File(paths[2], "w") as file:
        file["values"] = values
        file.create_dataset("clip_ids", data=ids, dtype=h5py.string_dtype())
    with paths[3].open("w", newline="") as text:
        rows = [[clip, *row] for clip, row in zip(ids, values.tolist(), strict=True)]
        csv.writer(text).writerows([["clip_id", *(f"x{i}" for i in range(5))], *rows])
    return paths


def write_manifest(path, n=12):
    """Write a manifest with every column, whose media do not exist."""
    head = "# mvemo manifest 1\n# name: soak\n# classes: calm, tense\n# root: .\n"
    rows = "".join(
        f"c{i},f/{i}.wav,{('calm', 'tense')[i % 2]},g{i // 2},{i * 0.5},2.0,{i // 2 % 3},train\n"
        for i in range(n)
    )
    path.write_text(f"{head}clip_id,path,label,group,start,duration,fold,split\n{rows}")


def write_predictions(path, n=12):
    """Write predictions of two models in three folds."""
    rows = "".join(
        f"c{i},g{i // 2},{i // 2 % 3},{model},{('calm', 'tense')[i % 2]},0.75,0.25\n"
        for i in range(n)
        for model in "ab"
    )
    path.write_text(f"clip_id,group,fold,model,label,p_calm,p_tense\n{rows}")


def write_weights(folder):
    """Write a state dict in each form that is read."""
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
