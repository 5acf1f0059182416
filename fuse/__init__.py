"""Stage two: heads over cached features, cross-validation, and the report."""

from mvemo.fuse.crossval import evaluate, majority_accuracy, score_model
from mvemo.fuse.errors import BadFeatures, FuseError, LeakError
from mvemo.fuse.heads import Fit, Head, fit_heads
from mvemo.fuse.models import Model, models_of
from mvemo.fuse.results import ModelResult, Results
from mvemo.fuse.saved import SavedHeads, load_heads, save_heads

__all__ = [
    "BadFeatures",
    "Fit",
    "FuseError",
    "Head",
    "LeakError",
    "Model",
    "ModelResult",
    "Results",
    "SavedHeads",
    "evaluate",
    "fit_heads",
    "load_heads",
    "majority_accuracy",
    "models_of",
    "save_heads",
    "score_model",
]
