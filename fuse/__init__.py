"""Stage two: heads over cached features, cross-validation, and the report."""

from mvemo.fuse.clips import Clips
from mvemo.fuse.crossval import evaluate, majority_accuracy, score_model
from mvemo.fuse.errors import BadFeatures, FuseError, LeakError
from mvemo.fuse.fitting import Fit, fit_heads
from mvemo.fuse.heads import Head
from mvemo.fuse.metrics_json import metrics_dict
from mvemo.fuse.models import Model, models_of
from mvemo.fuse.outputs import OutputResult, OutputResults
from mvemo.fuse.outputs_crossval import evaluate_outputs
from mvemo.fuse.outputs_metrics import output_metrics_dict
from mvemo.fuse.outputs_report import output_table, write_output_report
from mvemo.fuse.predictions import Predictions, read_predictions, results_of_predictions
from mvemo.fuse.report import write_report
from mvemo.fuse.results import ModelResult, Results
from mvemo.fuse.saved import SavedHeads, load_heads, save_heads
from mvemo.fuse.songs import song_level
from mvemo.fuse.tables import format_table

__all__ = [
    "BadFeatures",
    "Clips",
    "Fit",
    "FuseError",
    "Head",
    "LeakError",
    "Model",
    "ModelResult",
    "OutputResult",
    "OutputResults",
    "Predictions",
    "Results",
    "SavedHeads",
    "evaluate",
    "evaluate_outputs",
    "fit_heads",
    "format_table",
    "load_heads",
    "majority_accuracy",
    "metrics_dict",
    "models_of",
    "output_metrics_dict",
    "output_table",
    "read_predictions",
    "results_of_predictions",
    "save_heads",
    "score_model",
    "song_level",
    "write_output_report",
    "write_report",
]
