"""A net small enough to see through, and a problem that it learns at once."""

import numpy as np
import torch
from torch import nn

from mvemo.extract.nets import AudioInput, Net
from mvemo.extract.training import embedding, steps, trainer
from mvemo.extract.training.data import RawBatches

CPU = torch.device("cpu")


def mark_freed_memory():
    """Fill memory that is then freed with NaN, which kernels find that read outside of arrays."""
    blocks = [torch.full((2**k,), float("nan")) for k in range(6, 22) for _ in range(3)]
    del blocks


class Toy(Net):
    name = "toy"
    modality = "audio"

    def __init__(self, outputs):
        super().__init__(None)
        self.embedding_dim = 8
        self.hidden = nn.Linear(20, 8)
        self.drop = nn.Dropout(0.2)
        self.classifier = nn.Linear(8, outputs)

    @classmethod
    def input_of(cls, options):
        return AudioInput(sr=100, seconds=0.2)

    def prepare(self, raw):
        return raw * 2

    def embed(self, x):
        return self.drop(torch.relu(self.hidden(x)))

    def preprocessing(self):
        return {"scale": 2}


class Plain(Toy):
    """Without dropout, so that parts of a batch draw nothing."""

    def __init__(self, outputs=3):
        torch.manual_seed(0)
        super().__init__(outputs)
        self.drop = nn.Identity()


def problem(n=60):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    waves = rng.normal(size=(n, 20)).astype(np.float32)
    waves[np.arange(n), labels] += 3
    return waves, labels


def tuned(
    tmp_path, label, settings, *, val_rows=(), n=45, net=None, seed=1, on_epoch=None, data=None
):
    """A net after training on the toy problem or on `data`, and the losses."""
    waves, labels = data or problem(max([n, 60, *(row + 1 for row in val_rows)]))
    if net is None:
        torch.manual_seed(0)
        net = Toy(3)
    folder = trainer.JobFolder(tmp_path, label, "d" * 64)
    folder.begin({})
    rows, val_rows = list(range(n)), list(val_rows)
    job = steps.TrainingJob("toy@all", labels, "multiclass", rows, val_rows, settings, seed)
    batches = RawBatches(lambda row: waves[row], net.input)
    return net, trainer.fine_tune(net, batches, job, folder, on_epoch=on_epoch)


def same(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def embedded(net, reader, rows, size=4, device=CPU):
    """Vectors of rows by row, embedded independently of each other."""
    batches = embedding.embed_rows(
        net, reader, rows, batch_size=size, device=device, independent=True
    )
    return {row: vector for rows, values in batches for row, vector in zip(rows, values)}  # noqa: B905
