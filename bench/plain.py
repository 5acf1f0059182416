"""Classes and settings of benches that time only the fits of a cross-validation."""

from mvemo.fuse import EvaluationSettings, HeadSettings

CLASSES = ("Exciting", "Fear", "Neutral", "Relaxation", "Sad", "Tension")
# Inverse strength of the penalty, the same for all heads.
C = 0.01
PLAIN = EvaluationSettings(
    head=HeadSettings(C=C, choose_C=False),
    stacked=False,
    late=False,
    choose_model=False,
    missing_modality=False,
    temperature=False,
    n_resamples=0,
    kernel=False,
    audit=False,
)
