"""Results made by hand for the tests of tables, figures and reports."""

import dataclasses

import numpy as np
from feature_samples import CLASSES, MODALITY

from mvemo.cache import open_cache
from mvemo.fuse import EvaluationSettings, HeadSettings, evaluate
from mvemo.fuse.final.building import build_model
from mvemo.fuse.final.model_files import load_model, save_model
from mvemo.fuse.models import Model, models_of
from mvemo.fuse.results import Results, score_baseline, score_model
from mvemo.fuse.tasks import task_of

EMBEDDINGS = {"music1d": 256, "music2d": 160, "c3d": 512, "i3d": 1024}
MULTICLASS = task_of("multiclass")
NASTY = "<b>&amp; \"quoted\" 'single' --><script>alert(1)</script> é 音楽 $x_1$"


def make_results(n=96, k=6, *, classes=CLASSES, seed=0, missing=6, **changes):
    """Nine models with made-up probabilities; `missing` clips lack C3D."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(-(-n // 2)), 2)[:n]
    labels = (groups % len(classes)).astype(np.int64)
    folds = (groups // len(classes) % k).astype(np.int64)
    truth = np.eye(len(classes))[labels]
    noise = {name: rng.normal(size=(n, len(classes))) for name in MODALITY}
    strength = {"music1d": 0.8, "music2d": 2.0, "c3d": 1.2, "i3d": 1.5}
    scored = []
    for model in models_of(MODALITY):
        scores = sum(strength[f] * truth + noise[f] for f in model.features)
        probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        if "c3d" in model.features and missing:
            probabilities[:missing] = np.nan
        scored.append(score_model(MULTICLASS, model, probabilities, labels, folds, k))
    epochs = np.arange(1.0, 16.0)
    train, val = (list(1.8 * np.exp(-epochs / n) + 0.02 * epochs) for n in (8, 12))
    curve = {"epoch": list(epochs), "train_loss": train, "val_loss": val}
    spec = {"protocol": "crossfit", "weights": "cd" * 32, "trained_on": 80, "digest": "ab" * 32}
    results = Results(
        name="made by hand",
        task=MULTICLASS,
        classes=tuple(classes),
        clip_ids=tuple(f"Exciting/Happy {i:03d} (live).mp4" for i in range(n)),
        groups=tuple(f"source {g}" for g in groups),
        y_true=labels,
        folds=folds,
        k=k,
        seed=seed,
        protocol="crossfit",
        leaky=False,
        synthetic=False,
        permuted=False,
        models=tuple(scored),
        baseline=score_baseline(MULTICLASS, labels, folds, k, len(classes)),
        present={name: np.arange(n) >= (missing if name == "c3d" else 0) for name in MODALITY},
        failures=(
            ("Sad/Sad 017.mp4", "decode", "no video stream"),
            ("Fear/Fear_[x] 3.mp4", "decode", "the file ends after 0.4 s of 30.0 s"),
            ("Fear/Fear_[x] 3.mp4", "c3d", "no frames"),
        ),
        curves={f"{net}@{fold}": curve for net in MODALITY for fold in range(k)},
        provenance={
            "command": "mvemo-cv features.h5 --folds 6 --out out",
            "versions": {"python": "3.11.7", "mvemo": "0.1.0", "numpy": "2.4.6"},
            "features_digest": "0123456789abcdef" * 4,
            "manifest_digest": "fedcba9876543210" * 4,
            "C": 0.01,
            "features": {
                name: [
                    {**spec, "extractor": f"net:{name} v1", "fold": fold, "dim": dim}
                    for fold in range(k)
                ]
                for name, dim in EMBEDDINGS.items()
            },
        },
    )
    return dataclasses.replace(results, **changes)


def few_results(**changes):
    """Three models and the curves of one net: quick to draw."""
    made = make_results(24, 2, missing=2)
    models = (made.models[0], made.models[2], made.models[-1])
    curves = {"c3d@0": made.curves["c3d@0"]}
    return dataclasses.replace(made, **{"models": models, "curves": curves, **changes})


def one_model(results, outputs, **changes):
    """The same data with one model, ``net``, of these outputs."""
    made = dataclasses.replace(results, present={}, failures=(), **changes)
    of = outputs, made.y_true, made.folds, made.k
    return dataclasses.replace(made, models=(score_model(made.task, Model("net", (), ()), *of),))


def nasty_results():
    """Every text that comes from outside has characters that HTML, CSV or SVG could trip on."""
    made = make_results(24, 2)
    return dataclasses.replace(
        made,
        name=NASTY,
        classes=tuple(f"{c} {NASTY}" for c in made.classes),
        clip_ids=tuple(f'{i},\n"{NASTY}' for i in range(24)),
        groups=tuple(f"{g} {NASTY}" for g in made.groups),
        models=tuple(dataclasses.replace(m, name=f"{m.name} {NASTY}") for m in made.models),
        present={NASTY: np.arange(24) >= 3},
        failures=((NASTY, NASTY, NASTY),),
        curves={f"{NASTY}@{NASTY}": made.curves["c3d@0"]},
        provenance={NASTY: NASTY, "versions": {NASTY: NASTY}, "command": NASTY, "deep": [NASTY]},
    )


def empty_results():
    """One model that predicted nothing: every score is NaN."""
    made = make_results(24, 2, curves={}, failures=())
    (model,) = models_of({"c3d": "video"})
    scored = score_model(MULTICLASS, model, np.full((24, 6), np.nan), made.y_true, made.folds, 2)
    baseline = dataclasses.replace(scored, name="majority class")
    return dataclasses.replace(made, models=(scored,), baseline=baseline)


def primary(model):
    """float64 (folds,): the primary metric of a model of any task."""
    (name,) = {"accuracy", "roc_auc_macro", "r2_macro"} & set(model.per_fold)
    return model.per_fold[name]


def plain_settings(**changes):
    """Settings of an evaluation that does nothing but what is asked for; `C` is the heads'."""
    head = HeadSettings(C=changes.pop("C", 0.01), choose_C=False, balance_blocks=False)
    if changes.get("models") is not None:
        changes["models"] = tuple(changes["models"])
    names = ("stacked", "late", "kernel", "missing_modality", "choose_model", "temperature")
    plain = {"head": head, "n_resamples": 0, "audit": False, **dict.fromkeys(names, False)}
    return EvaluationSettings(**{**plain, **changes})


def evaluated(path, **options):
    """Evaluate a cache by `plain_settings`."""
    with open_cache(path) as cache:
        return evaluate(cache, plain_settings(**options))


def built(path, preferred=None, **options):
    """Return the model of an evaluation by `plain_settings`, and its results."""
    settings = plain_settings(refit=True, **options)
    with open_cache(path) as cache:
        results = evaluate(cache, settings)
        return build_model(cache, results, settings, preferred), results


def reloaded(model, folder):
    """Return a model as it is read from its folder."""
    save_model(folder, model)
    return load_model(folder)


def by_name(results):
    return {model.name: model for model in results.models}
