"""Stage two: heads over cached features, cross-validation, and the report."""

from typing import TYPE_CHECKING

from mvemo.manifests.lazy import import_on_use

if TYPE_CHECKING:
    from mvemo.fuse.clips import Clips
    from mvemo.fuse.crossval.evaluation import evaluate
    from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
    from mvemo.fuse.crossval.saving import SavedHeads, load_heads, save_heads
    from mvemo.fuse.errors import BadFeatures, FuseError, LeakError
    from mvemo.fuse.external import Predictions, results_of_predictions
    from mvemo.fuse.heads.fitting import Fit, fit_heads
    from mvemo.fuse.heads.head import Head, HeadSettings
    from mvemo.fuse.models import Model, models_of
    from mvemo.fuse.prediction_files import read_predictions
    from mvemo.fuse.report.drawing import Picture
    from mvemo.fuse.report.figures import draw_figures
    from mvemo.fuse.report.files import metrics_dict, write_report
    from mvemo.fuse.report.terminal import format_table
    from mvemo.fuse.results import ModelResult, Results, score_baseline, score_model
    from mvemo.fuse.songs import song_level
    from mvemo.fuse.tasks.base import Task
    from mvemo.fuse.tasks.registry import task_of

_PLACES = {
    "BadFeatures": "errors",
    "Clips": "clips",
    "EvaluationSettings": "crossval.evaluation_settings",
    "Fit": "heads.fitting",
    "FuseError": "errors",
    "Head": "heads.head",
    "HeadSettings": "heads.head",
    "LeakError": "errors",
    "Model": "models",
    "ModelResult": "results",
    "Picture": "report.drawing",
    "Predictions": "external",
    "Results": "results",
    "SavedHeads": "crossval.saving",
    "Task": "tasks.base",
    "draw_figures": "report.figures",
    "evaluate": "crossval.evaluation",
    "fit_heads": "heads.fitting",
    "format_table": "report.terminal",
    "load_heads": "crossval.saving",
    "metrics_dict": "report.files",
    "models_of": "models",
    "read_predictions": "prediction_files",
    "results_of_predictions": "external",
    "save_heads": "crossval.saving",
    "score_baseline": "results",
    "score_model": "results",
    "song_level": "songs",
    "task_of": "tasks.registry",
    "write_report": "report.files",
}

__all__ = [
    "BadFeatures",
    "Clips",
    "EvaluationSettings",
    "Fit",
    "FuseError",
    "Head",
    "HeadSettings",
    "LeakError",
    "Model",
    "ModelResult",
    "Picture",
    "Predictions",
    "Results",
    "SavedHeads",
    "Task",
    "draw_figures",
    "evaluate",
    "fit_heads",
    "format_table",
    "load_heads",
    "metrics_dict",
    "models_of",
    "read_predictions",
    "results_of_predictions",
    "save_heads",
    "score_baseline",
    "score_model",
    "song_level",
    "task_of",
    "write_report",
]

__getattr__ = import_on_use(__name__, _PLACES)
