"""Fine-tuning of one net, with early stopping on validation groups of its training clips.

PL20 3.3 and 3.5 fine-tune every net on the emotion clips before its features are taken;
optimizers and rates are those of PL20 Table 2. The caller chooses the clips that a net may see
(`mvemo.extract.training.protocols`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from mvemo.extract.nets.parts.base import Net
from mvemo.extract.training.batches import Batches
from mvemo.extract.training.checkpoints import JobFolder
from mvemo.extract.training.jobs import Curve, TrainingJob
from mvemo.extract.training.trainer import Trainer

# Minimum seconds between two saved states of a run: writing the state of a large net is slow.
STATE_INTERVAL = 20.0


def fine_tune(
    net: Net,
    batches: Batches,
    job: TrainingJob,
    folder: JobFolder,
    *,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Curve:
    """Train `net` in place, leave it with its best weights, and return the curve of losses.

    With ``patience = 0`` the net keeps its last weights, or the average of the last ones if the
    recipe sets `average`, and the validation rows have no effect.

    The curve has ``epoch``, ``train_loss``, ``val_loss`` and ``val_accuracy``; values that do
    not exist are NaN. With ``settings.iterations`` it also has ``iteration``, from 1, and
    ``iteration_loss``, the loss of that step's batch. For regression it has ``target_mean`` and
    ``target_deviation`` of the training clips, which define the unit of the losses.
    """
    trainer = Trainer(net, batches, job)
    run = trainer.resume(folder)
    trainer.ranks.require_same(run.epoch > 0, f"a saved state of {job.label}")
    if not run.epoch and job.settings.recipe.probe:
        trainer.fit_classifier()
    patience = job.settings.patience
    saved_at = time.monotonic()
    for epoch in range(run.epoch + 1, job.epochs + 1):
        if patience and run.since_best >= patience:
            break
        trainer.run_epoch(epoch, run)
        trainer.check_finite(run)
        if trainer.ranks.first and time.monotonic() - saved_at > STATE_INTERVAL:
            folder.save_state(trainer.state(run))
            saved_at = time.monotonic()
        if on_epoch is not None:
            on_epoch(epoch, run.curve["val_loss"][-1])
    if patience and math.isinf(run.best_loss):
        raise trainer.divergence(run)
    if patience or job.settings.recipe.average:
        net.load_state_dict(run.best)
    trainer.loss.finish(net.classifier)
    return run.curve
