"""Fine-tuning of one net, with early stopping on validation groups of its training clips.

PL20 3.3 and 3.5 fine-tune every net on the emotion clips before its features are taken.

The folder of a job is named by the digest of everything that determines its result, so unchanged
settings find the earlier result. ``state.pt`` is the run in progress, ``weights.pt`` the finished
net, ``settings.json`` its settings, and ``curve.json`` its losses.
"""

import copy
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from mvemo.extract.errors import TrainingDiverged
from mvemo.extract.nets.parts.base import Net
from mvemo.extract.training import data, devices, recipe, steps
from mvemo.manifests import files, text_files
from mvemo.manifests.errors import MvemoError


class JobFolder:
    """Folder of one fine-tuning job, named by its label and the digest of its settings."""

    def __init__(self, root: Path, label: str, digest: str) -> None:
        self.path: Path = root / f"{label}-{digest[:16]}"

    def begin(self, settings: Mapping[str, Any]) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MvemoError(f"{self.path}: cannot be created: {error.strerror}") from error
        files.write_json(self.path / "settings.json", settings, durable=False)

    def finish(self, weights: Mapping[str, torch.Tensor], curve: Mapping[str, list[float]]) -> None:
        files.write_json(self.path / "curve.json", curve, durable=False)
        self.save("weights.pt", {"weights": weights})
        (self.path / "state.pt").unlink(missing_ok=True)

    def result(self) -> tuple[dict[str, torch.Tensor], dict[str, list[float]]] | None:
        saved = self.load("weights.pt")
        if saved is None:
            return None
        try:
            curve = text_files.read_json(self.path / "curve.json")
        except (OSError, ValueError):
            return None
        return saved["weights"], {
            name: [math.nan if value is None else float(value) for value in values]
            for name, values in curve.items()
        }

    def load(self, name: str) -> dict[str, Any] | None:
        """Return the values of ``state.pt`` or ``weights.pt``, or None if it is not readable."""
        path = self.path / name
        if not path.is_file():
            return None
        try:
            return cast(dict[str, Any], torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:
            # torch raises many types of error for a damaged file.
            warnings.warn(f"{path}: is damaged ({error}); the net is trained again", stacklevel=2)
            return None

    def save(self, name: str, value: Mapping[str, Any]) -> None:
        # Not durable: a damaged file is detected when it is read, and the net is trained again.
        with files.replacing(self.path / name, durable=False) as temp:
            torch.save(value, temp)


# Maximum number of points of a curve by iterations; with more steps, some are left out.
MAX_POINTS = 5000


# Values of a curve by epoch, NaN if they do not exist. With ``settings.iterations`` it also has
# ``iteration``, from 1, and ``iteration_loss``; for regression the mean and deviation of targets.
EPOCH_VALUES = ("epoch", "train_loss", "val_loss", "val_accuracy")


@dataclass
class TrainingRun:
    best: dict[str, Any]  # ``state_dict`` of the net at the lowest validation loss
    curve: steps.Curve  # losses by epoch
    best_loss: float = math.inf  # lowest validation loss so far
    since_best: int = 0  # number of epochs since that loss
    epoch: int = 0  # last finished epoch, from 1


class Trainer(steps.Stepper):
    """Fine-tuning of a net: its epochs, its validation, and its state between epochs."""

    def __init__(self, net: Net, batches: data.Batches, job: steps.TrainingJob) -> None:
        super().__init__(net, job)
        self.batches = batches
        self.target: Tensor = torch.from_numpy(job.y_true).to(self.device)
        self.rates: list[float] = [group["lr"] for group in self.optimizer.param_groups]
        labels = torch.from_numpy(job.y_true[list(job.train_rows)])
        self.kept: dict[str, list[float]] = self.loss.fit(labels)
        self.loss.to(self.device).constrain(net.classifier)

    @torch.no_grad()
    def fit_classifier(self) -> None:
        """Fit the classifier on the embeddings of the training rows, before other layers change."""
        net, rows = self.net, self.job.train_rows
        net.eval()
        features = []
        for _, raw in self.batches.ahead(data.split_rows(rows, self.settings.batch_size)):
            with devices.autocast(self.device, self.job.precision):
                features.append(net.features(net.prepare(raw.to(self.device))).float())
        with torch.enable_grad():
            recipe.fit_probe(net, self.loss, torch.cat(features), self.target[list(rows)])

    def resume(self, folder: JobFolder) -> TrainingRun:
        """Return the saved run of a folder, or a new run."""
        curve: steps.Curve = {name: [] for name in EPOCH_VALUES} | self.kept
        if self.settings.iterations:
            curve |= {"iteration": [], "iteration_loss": []}
        state = folder.load("state.pt")
        if state is None:
            return TrainingRun(copy.deepcopy(self.net.state_dict()), curve)
        self.net.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loss.load_state_dict(state["loss"])
        return TrainingRun(**{each.name: state[each.name] for each in fields(TrainingRun)})

    def state(self, run: TrainingRun) -> dict[str, Any]:
        return {
            "weights": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loss": self.loss.state_dict(),
            **vars(run),
        }

    def run_epoch(self, epoch: int, run: TrainingRun) -> None:
        """Train one epoch in random order, score the validation rows, and record both in `run`."""
        job = self.job
        torch.manual_seed(job.seed * 100_003 + epoch)
        order = torch.randperm(len(job.train_rows)).tolist()
        groups = data.split_rows([job.train_rows[i] for i in order], job.settings.batch_size)
        if len(groups) > 1 and len(groups[-1]) == 1:
            # Batch normalisation needs two clips.
            groups[-2:] = [groups[-2] + groups[-1]]
        if job.settings.iterations:
            groups = groups[: job.settings.iterations - job.steps_before(epoch)]
        first_step = job.steps_before(epoch)
        losses = self.train_batches(groups, first_step)
        sizes = [len(group) for group in groups]
        train_loss = sum(a * n for a, n in zip(losses, sizes, strict=True)) / sum(sizes)
        val_loss = accuracy = math.nan
        if len(job.val_rows):
            val_loss, accuracy = self.score(job.val_rows)
        iterations = self.settings.iterations
        for step, value in enumerate(losses, first_step + 1):
            if iterations and step % math.ceil(iterations / MAX_POINTS) == 0:
                run.curve["iteration"].append(float(step))
                run.curve["iteration_loss"].append(value)
        values = float(epoch), train_loss, val_loss, accuracy
        for name, value in zip(EPOCH_VALUES, values, strict=True):
            run.curve[name].append(value)
        run.epoch = epoch
        if not self.settings.patience:
            # Number of epochs, to this one, whose weights are averaged.
            n_averaged = epoch - self.job.epochs
            n_averaged += max(round(self.recipe.average * self.job.epochs), 1)
            if self.recipe.average and n_averaged > 0:
                run.best = recipe.add_to_average(run.best, self.net.state_dict(), n_averaged)
        elif val_loss < run.best_loss:
            run.best_loss, run.since_best = val_loss, 0
            run.best = copy.deepcopy(self.net.state_dict())
        else:
            run.since_best += 1

    def train_batches(self, groups: Sequence[Sequence[int]], first_step: int) -> list[float]:
        """Take one step on each batch of rows, and return the losses before the steps."""
        self.net.train()
        if self.recipe.freeze_norm:
            recipe.freeze_norms(self.net)
        losses = []
        indices = data.indices_on(self.device, groups)
        batches = zip(self.batches.ahead(groups), indices, strict=True)
        for step, ((_, raw), rows) in enumerate(batches, first_step):
            factor = recipe.rate_factor(self.recipe, step, self.job.steps)
            for weights, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                weights["lr"] = rate * factor
            losses.append(self.step(raw, self.target[rows]))
        return steps.to_floats(losses)

    @torch.no_grad()
    def score(self, rows: Sequence[int]) -> tuple[float, float]:
        """Return the mean loss and, for classes, the accuracy on rows, in evaluation mode."""
        net, loss = self.net, self.loss
        net.eval()
        totals = [torch.zeros((), dtype=torch.float64, device=self.device)]
        n_correct = [totals[0]]
        parts = data.split_rows(rows, self.settings.batch_size)
        for (batch, raw), indices in zip(
            self.batches.ahead(parts), data.indices_on(self.device, parts), strict=True
        ):
            target = self.target[indices]
            with devices.autocast(self.device, self.job.precision):
                x = net.features(net.prepare(raw.to(self.device, non_blocking=True)))
                totals.append(loss(x, net.classifier, target).double() * len(batch))
                n_correct.append(loss.n_right(x, net.classifier, target))
        sums = torch.stack([torch.stack(totals).sum(), torch.stack(n_correct).sum()])
        loss_mean, accuracy = (sums / max(len(rows), 1)).tolist()
        return loss_mean, accuracy

    def divergence_error(self, run: TrainingRun) -> TrainingDiverged:
        lr = self.settings.lr
        return TrainingDiverged(
            f"{self.job.label}: training diverged: no finite loss by epoch {run.epoch} "
            f"(training {run.curve['train_loss'][-1]:g}, validation "
            f"{run.curve['val_loss'][-1]:g})",
            f"lower the learning rate with --set nets.{self.net.name}.lr={lr / 10:g} "
            f"(it is {lr:g})",
        )


# Minimum seconds between two saved states of a run: writing a large net is slow.
STATE_INTERVAL = 20.0


def fine_tune(
    net: Net,
    batches: data.Batches,
    job: steps.TrainingJob,
    folder: JobFolder,
    *,
    on_epoch: Callable[[str, int, int, float], None] | None = None,
) -> steps.Curve:
    """Train `net` in place, leave it with its best weights, and return the curve of losses."""
    trainer = Trainer(net, batches, job)
    run = trainer.resume(folder)
    if not run.epoch and job.settings.recipe.probe:
        trainer.fit_classifier()
    patience = job.settings.patience
    saved_at = time.monotonic()
    for epoch in range(run.epoch + 1, job.epochs + 1):
        if patience and run.since_best >= patience:
            break
        trainer.run_epoch(epoch, run)
        if not (patience and math.isfinite(run.best_loss)):
            # No earlier weights were kept.
            state = [v for v in net.state_dict().values() if v.is_floating_point()]
            if not all(torch.isfinite(value).all() for value in state):
                raise trainer.divergence_error(run)
        if time.monotonic() - saved_at > STATE_INTERVAL:
            folder.save("state.pt", trainer.state(run))
            saved_at = time.monotonic()
        if on_epoch is not None:
            on_epoch(job.label, epoch, job.epochs, run.curve["val_loss"][-1])
    if patience and math.isinf(run.best_loss):
        raise trainer.divergence_error(run)
    if patience or job.settings.recipe.average:
        net.load_state_dict(run.best)
    trainer.loss.finish(net.classifier)
    return run.curve
