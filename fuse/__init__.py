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
    from mvemo.fuse.report.report_files import metrics_dict, write_report
    from mvemo.fuse.report.terminal import format_table
    from mvemo.fuse.results import ModelResult, Results, score_baseline, score_model
    from mvemo.fuse.songs import song_level
    from mvemo.fuse.tasks import task_of
    from mvemo.fuse.tasks.base import Task

_NAMES = {
    "clips": ("Clips",),
    "crossval.evaluation": ("evaluate",),
    "crossval.saving": ("SavedHeads", "load_heads", "save_heads"),
    "crossval.evaluation_settings": ("EvaluationSettings",),
    "errors": ("BadFeatures", "FuseError", "LeakError"),
    "external": ("Predictions", "results_of_predictions"),
    "heads.fitting": ("Fit", "fit_heads"),
    "heads.head": ("Head", "HeadSettings"),
    "models": ("Model", "models_of"),
    "prediction_files": ("read_predictions",),
    "report.drawing": ("Picture",),
    "report.figures": ("draw_figures",),
    "report.report_files": ("metrics_dict", "write_report"),
    "report.terminal": ("format_table",),
    "results": ("ModelResult", "Results", "score_baseline", "score_model"),
    "songs": ("song_level",),
    "tasks.base": ("Task",),
    "tasks": ("task_of",),
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

_PLACES = {name: module for module, names in _NAMES.items() for name in names}
__getattr__ = import_on_use(__name__, _PLACES)
