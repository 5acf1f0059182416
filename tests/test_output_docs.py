"""Every key that docs/outputs.md names is in a run's files, and the other way round."""

import csv
import re
from pathlib import Path

import pytest
from feature_samples import frozen_cache, make_table
from output_samples import output_cache, output_table

from mvemo.cache import export_cache, open_cache
from mvemo.fuse import EvaluationSettings, HeadSettings, evaluate
from mvemo.fuse.final.clip_prediction import ClipPrediction
from mvemo.fuse.final.model_files import load_model
from mvemo.fuse.final.prediction_records import NOTES, record_rows, records
from mvemo.fuse.report.report_files import metrics_dict, predictions_csv
from mvemo.manifests import Clip, Manifest, folds_of, write_folds, write_manifest
from mvemo.pipeline.models.boxed import model_folder

PAGE = Path(__file__).resolve().parents[1] / "docs" / "outputs.md"
TASKS = ("multiclass", "multilabel", "regression")
# Keys that stand for any name; their entries are documented alike.
ANY = {"MODEL", "FEATURE", "OUTPUT", "SCORE"}


def sections():
    """Title to the rows of its tables, without their headers."""
    parts = re.split(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {}
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
        found[title] = [row for row in rows if "`" in row[0] or title == "predictions.csv"]
    return found


def names(cell):
    """What a cell has in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def documented(task):
    """The paths of keys that every run of a task has."""
    rows = [row for which in ("all tasks", task) for row in sections()[f"metrics.json, {which}"]]
    return [name for row in rows for name in names(row[0])]


def steps(path):
    """``a[].B`` as ``a``, ``[]``, ``B``."""
    return path.replace("[]", ".[]").split(".")


def has(value, path, primary):
    """Whether JSON values have a path; every entry of what stands for any name."""
    if not path:
        return True
    step, *rest = path
    step = primary if step == "PRIMARY" else step
    if step == "[]":
        return bool(value) and all(has(entry, rest, primary) for entry in value)
    if not isinstance(value, dict):
        return False
    if step in ANY:
        # Beside the scores of an output lie other values.
        return bool(value) and all(has(entry, rest, primary) for entry in value.values())
    return step in value and has(value[step], rest, primary)


def written(value, primary, path=()):
    """The path of every key of JSON values, in the words of the page."""
    where = ".".join(path).replace(".[]", "[]")
    if where in ("audit", "provenance", "models.MODEL.without_modality", "comparisons[].by_field"):
        yield where
    elif isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        for entry in value:
            yield from written(entry, primary, (*path, "[]"))
    elif isinstance(value, dict) and value:
        holder = path[-1] if path else ""
        any_name = {
            "models": "MODEL", "missing": "FEATURE", "outliers": "FEATURE", "per_output": "OUTPUT",
            "learning_curve": "MODEL", "chance": "MODEL", "per_fold": "SCORE",
            "mean_over_folds": "SCORE",
            "intervals": "SCORE",
        }.get(holder, "MODEL" if path == ("repeats", "[]") else "")  # fmt: skip
        for key, entry in value.items():
            in_list = key == primary and path[:1] in (("models",), ("learning_curve",), ("choice",))
            yield from written(entry, primary, (*path, any_name or ("PRIMARY" if in_list else key)))
    else:
        yield where


@pytest.fixture(scope="module", params=TASKS)
def run(request, tmp_path_factory):
    """A task's metrics, and the header of its predictions."""
    task, path = request.param, tmp_path_factory.mktemp("run") / "features.h5"
    missing = {"c3d": range(4)}
    if task == "multiclass":
        frozen_cache(path, make_table(48, 3), names=("music1d", "c3d"), missing=missing)
    else:
        output_cache(path, output_table(task, n=48), missing=missing)
    more = {"learning_curve": True, "missing_modality": True, "n_resamples": 50}
    settings = EvaluationSettings(head=HeadSettings(C=0.1), repeats=2, permute_labels=2, **more)
    with open_cache(path) as cache:
        results = evaluate(cache, settings)
    header = next(csv.reader(predictions_csv(results).splitlines()))
    return metrics_dict(results), header


def test_every_documented_key_is_there(run):
    metrics, _ = run
    paths = documented(metrics["task"])
    assert len(paths) > 50
    primary = metrics["primary_metric"]
    missing = [path for path in paths if not has(metrics, steps(path), primary)]
    assert missing == []


def test_the_baseline_has_the_keys_of_a_model(run):
    metrics, _ = run
    model = next(iter(metrics["models"].values()))
    assert set(metrics["baseline"]) == {"name", *model}


def test_every_key_is_documented(run):
    metrics, _ = run
    known = set(documented(metrics["task"]))
    values = {**metrics, "baseline": {"name": metrics["baseline"]["name"]}}
    model = next(iter(metrics["models"].values()))
    # Other scores of the choice are those of a model.
    own = {"model", "inside", "intervals", metrics["primary_metric"]}
    assert metrics["choice"].keys() <= own | model.keys()
    values["choice"] = {name: metrics["choice"][name] for name in own}
    paths = set(written(values, metrics["primary_metric"]))
    assert sorted(paths - known) == []


def test_columns_of_predictions(run):
    metrics, header = run
    rows = {row[0].strip(): names(row[1]) for row in sections()["predictions.csv"]}
    common, own = rows["all"], rows[metrics["task"]]
    assert header[:4] == ["repeat", *common[:3]]
    plain, patterned = ([n for n in own if ("OUTPUT" in n) == by] for by in (False, True))
    of_outputs = [n.replace("OUTPUT", out) for out in metrics["classes"] for n in patterned]
    assert header[4:] == plain + of_outputs


def row_of(name):
    """Columns of a row of the tables of other commands."""
    rows = sections()["Tables of the other commands"]
    return names(next(row[1] for row in rows if name in row[0]))


@pytest.mark.parametrize(("model", "kind"), [("music-video", "classes"), ("film-music", "ratings")])
def test_columns_of_predicted_tables(model, kind):
    loaded = load_model(model_folder(model))
    facts = {"content": "", "duration": 1.0, "version": "", "date": "", "seconds": 1.0}
    clips = [ClipPrediction("a.mp3", error="?", facts=facts)]
    table = record_rows(loaded, records(loaded, clips, facts=True))
    documented = row_of(kind)
    by_output = [name for name in documented if "OUTPUT" in name]
    first = [name for name in ("label", "confidence") if name in documented]
    columns = [n.replace("OUTPUT", output) for output in loaded.classes for n in by_output]
    expected = ["path", "model", *first, *columns, *NOTES, "error", "model_digest", "model_date"]
    assert table[0] == [*expected, *row_of("`--cache`")]


def test_columns_of_manifests_folds_and_exports(tmp_path):
    clips = [Clip(f"c{i}", f"c{i}.mp3", (("a", "b")[i % 2],), f"g{i}", 1.0, 2.0) for i in range(4)]
    manifest = Manifest("m", "multiclass", ("a", "b"), tuple(clips), tmp_path)
    write_manifest(manifest, tmp_path / "clips.csv")
    write_folds(folds_of(manifest, 2), tmp_path / "folds.csv")
    cache = frozen_cache(tmp_path / "f.h5", make_table(48, 3), names=("c3d",))
    export_cache(cache, "c3d", tmp_path / "c3d.csv")
    for name, row in (("clips", "clips.csv"), ("folds", "folds.csv"), ("c3d", "export")):
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            # The settings are the name of an empty last column.
            header = [n for n in next(csv.reader(file)) if not n.startswith("mvemo: ")]
        documented = [column.replace("FEATURE", "c3d") for column in row_of(row)]
        first = documented[:2] if name != "c3d" else ["clip_id", "c3d_0"]
        assert header[:2] == first
        assert set(header) <= {*documented, *(f"c3d_{i}" for i in range(len(header)))}
