"""A methods paragraph and a checklist for a paper, from the ``metrics.json`` of a run.

A meta-analysis of music emotion recognition (Eerola & Anderson 2026, ACM Computing Surveys 58(10))
left out 62 of 96 studies, most of them because they did not report what a comparison needs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mvemo.fuse.models import KERNEL
from mvemo.fuse.report.summary import IN_WORDS
from mvemo.fuse.report.text import count
from mvemo.fuse.results import OTHERS
from mvemo.fuse.tasks import task_of
from mvemo.manifests import files, text_files
from mvemo.manifests.errors import BadFile, BadOption, MissingFile
from mvemo.manifests.text_table import escaped

# Mean score of the best models in 34 studies (r of a target, or MCC) and, if the meta-analysis
# states them, the ends of its range.
META_ANALYSIS: dict[str, tuple[float, ...]]
META_ANALYSIS = {"valence": (0.67, 0.56, 0.76), "arousal": (0.81, 0.74, 0.86), "mcc": (0.87,)}
TITLES = {"accuracy": "accuracy", "r2_macro": "R2", "roc_auc_macro": "macro ROC-AUC", "mcc": "MCC"}
TITLES |= {"mcc_macro": "macro MCC", "f1_macro": "macro F1"}
TITLES |= {"pearson_r": "r", "r2": "R2", "ccc": "CCC"}
# Marks of runs whose scores are not results.
NO_RESULT = {
    "synthetic": "the clips are generated",
    "permuted": "the labels were drawn at random",
    "leaky": "models saw clips that they are scored on",
    "predicted_by": "a model predicted the labels",
}
STATED = {True: "yes", False: "missing"}
Facts = Mapping[str, Any]


def methods_facts(metrics: Facts) -> dict[str, Any]:
    """Return the methods text of a run, the content of whose ``metrics.json`` is given.

    ``warning`` states why the scores are not results, if so; ``annotators``, ``methods`` and
    ``comparison`` are texts; each ``text`` of the ``checklist`` is from the run, or states what to
    add.
    """
    # A run on random labels recommends no model.
    metrics = {**metrics, "choice": None if metrics["permuted"] else metrics["choice"]}
    primary, models = metrics["primary_metric"], metrics["models"]
    best = max(models, key=lambda one: models[one][primary]["mean"] or -1.0)
    name = (metrics["choice"] or {}).get("model") or best
    provenance = metrics["provenance"]
    versions = ", ".join(f"{k} {v}" for k, v in provenance.get("versions", {}).items())
    software = f"Software: {versions}." * bool(versions)
    software += f" Command: `{c}`." if (c := provenance.get("command")) else ""
    paragraphs = [_data(metrics), _models(metrics), _scores(metrics, name), software]
    reasons = "; ".join(why for mark, why in NO_RESULT.items() if metrics.get(mark))
    return {
        "warning": reasons,
        "annotators": _annotators(metrics),
        "methods": escaped(" ".join(filter(None, paragraphs))),
        "comparison": escaped(_among_others(metrics, name))
        + f" This run is not a result to compare: {reasons}." * bool(reasons),
        "checklist": [
            {"item": item, "stated": bool(value), "text": escaped(value or cure)}
            for item, value, cure in _checklist(metrics, name)
        ],
    }


def methods_text(metrics: Facts) -> str:
    """Return `methods_facts` as Markdown."""
    facts = methods_facts(metrics)
    rows = ["| item | stated | value, or what to add |", "| --- | --- | --- |"]
    for row in facts["checklist"]:
        mark = "" if row["stated"] else "**"
        text = row["text"].replace("|", "\\|")
        rows.append(f"| {row['item']} | {mark}{STATED[row['stated']]}{mark} | {text} |")
    missing = sum(not row["stated"] for row in facts["checklist"])
    blocks = [
        "## Methods",
        *[f"**Not a result: {facts['warning']}.**"] * bool(facts["warning"]),
        facts["methods"],
        "## Among other studies",
        facts["comparison"],
        f"## Checklist: {missing} of {len(facts['checklist'])} missing",
        "\n".join(rows),
    ]
    return "\n\n".join(blocks)


def _data(metrics: Facts) -> str:
    outputs = task_of(metrics["task"]).output_nouns
    n, names = len(metrics["classes"]), ", ".join(metrics["classes"])
    kind = " of generated clips" if metrics["synthetic"] else ""
    text = (
        f"The data set {metrics['name']}{kind} has {metrics['clips']} clips in {metrics['groups']} "
        f"groups, with {n} {outputs[n > 1]} ({names})."
    )
    if annotated := _annotators(metrics):
        text += f" Labels are those of {annotated}."
    if metrics["protocol"] == OTHERS:
        return (
            f"{text} Predictions of another program, whose training clips are not known, are "
            f"scored in {count(metrics['folds'], 'fold')}."
        )
    if metrics["folds"] == 1:
        return f"{text} One split was tested; no group was in both parts."
    return (
        f"{text} Models were scored by {metrics['folds']}-fold cross-validation (seed "
        f"{metrics['seed']}), stratified by the labels, with whole groups."
    )


def _models(metrics: Facts) -> str:
    features = metrics["provenance"].get("features") or {}
    listed = []
    for name, (one, *_) in features.items():
        facts = [one.get("modality"), one.get("extractor")]
        facts += [f"{one['dim']} values"] if "dim" in one else []
        facts += [f"weights {one['weights'][:12]}"] if one.get("weights") else []
        listed.append(f"{name} ({', '.join(map(str, filter(None, facts)))})")
    described = ", ".join(listed)
    settings = metrics["provenance"].get("settings") or {}
    head = settings.get("head") or {}
    made_by = IN_WORDS.get(metrics["protocol"], "values computed from the media")
    text = f"Features ({made_by}): {described}." if described else "The features are not known."
    if head:
        how = "chosen by inner cross-validation" if head.get("choose_C") else f"C = {head['C']:g}"
        text += (
            " Linear heads with an L2 penalty were fitted on features that were standardised on "
            f"the training clips (penalty: {how})."
        )
        text += " The model kernel is kernel ridge regression." * (KERNEL in metrics["models"])
    if metrics["choice"]:
        text += (
            " The model was chosen inside the training folds (nested cross-validation): the "
            "simplest one within one standard error of the lowest loss."
        )
    return text


def _annotators(metrics: Facts) -> str:
    """Return the number and the agreement of the annotators, or ''."""
    known = [c for c in metrics.get("ceilings", ()) if c["annotators"]]
    if not known:
        return ""
    alphas = ", ".join(f"{c['target']} {c['alpha']:.2f}".strip() for c in known if c.get("alpha"))
    agreed = f", Krippendorff's alpha {alphas}" if alphas else ""
    both = [f"{c['target']} {c['icc'][0]:.2f} and {c['icc'][1]:.2f}" for c in known if c.get("icc")]
    agreed += f", ICC(2,1) and ICC(2,k) {', '.join(both)}" if both else ""
    return f"{known[0]['annotators']:.3g} annotators per clip{agreed}"


def _scores(metrics: Facts, name: str) -> str:
    primary = metrics["primary_metric"]
    expected = metrics["choice"] or metrics["models"][name]
    if expected[primary]["mean"] is None:
        return "No model made a prediction."
    first = _score(TITLES[primary], *_primary(metrics, expected))
    whose = f"{name}, with the cost of its choice," if metrics["choice"] else name
    text = (
        f"{whose} has {first} (the model without features, {metrics['baseline']['name']}: "
        f"{metrics['baseline'][primary]['mean']:.3f})."
    )
    others = ", ".join(_score(*one) for one in _compared(_expected(metrics, name)))
    text += f" Pooled over folds it has {others}." if others else ""
    known = "]" in first[-1:] + others[-1:]
    return text + " Intervals are at 95 %, over groups (Student's t)." * known


def _expected(metrics: Facts, name: str) -> Facts:
    """Return the scores to expect: of the nested choice, or of the model in runs without them."""
    choice: Facts = metrics["choice"] or {}
    return choice if "per_output" in choice else metrics["models"][name]


def _compared(model: Facts) -> list[tuple[str, float, Sequence[float] | None]]:
    """Return name, value and interval of the scores that meta-analyses compare."""
    found = []
    for score in ("mcc", "mcc_macro", "f1_macro"):
        if score in model:
            found.append((TITLES[score], model[score], model["intervals"].get(score)))
    for output, values in model["per_output"].items():
        for score in ("pearson_r", "r2", "ccc"):
            if score in values:
                ends = values["intervals"].get(score)
                found.append((f"{TITLES[score]} of {output}", values[score], ends))
    return [one for one in found if one[1] is not None]


def _primary(metrics: Facts, model: Facts) -> tuple[float, Sequence[float] | None]:
    """Return the primary metric of a model as the report expects it, and its interval."""
    task, scores = task_of(metrics["task"]), model[metrics["primary_metric"]]
    ends = (model.get("intervals") or {}).get(task.primary_interval[0])
    value = scores["pooled" if task.pooled_interval else "mean"]
    return value, ends if ends and None not in ends else None


def _score(name: str, value: float, ends: Sequence[float] | None) -> str:
    text = f"{name} {value:.3f}"
    return f"{text} [{ends[0]:.3f}, {ends[1]:.3f}]" if ends and None not in ends else text


def _among_others(metrics: Facts, name: str) -> str:
    model, found = _expected(metrics, name), []
    scores = [("mcc", "MCC", model.get("mcc"))]
    for output, values in model["per_output"].items():
        scores.append((output.lower(), f"{output}: r", values.get("pearson_r")))
    for key, title, value in scores:
        if key in META_ANALYSIS and value is not None:
            theirs, *ends = META_ANALYSIS[key]
            low, high = ends or (theirs, theirs)
            shown = round(value, 2)
            side = "below" if shown < low else "above" if shown > high else "within" * bool(ends)
            within = f" [{low:.2f}, {high:.2f}]" if ends else ""
            found.append(
                f"{title} {shown:.2f} here, {side or 'equal to'} {theirs:.2f}{within} there"
            )
    listed = "; ".join(found) or "none of these scores is known here"
    return (
        "The best models of 34 studies in a meta-analysis (Eerola & Anderson 2026, ACM Computing "
        f"Surveys 58(10)): {listed}. Those studies used other music, labels and splits, so this "
        "shows the order of magnitude and is not a ranking. No other figure of the meta-analysis "
        "is known here."
    )


def _checklist(metrics: Facts, name: str) -> list[tuple[str, str, str]]:
    """Return item, its value ('' if missing), and what to add."""
    provenance = metrics["provenance"]
    settings = provenance.get("settings") or {}
    expected = metrics["choice"] or metrics["models"][name]
    value, ends = _primary(metrics, expected)
    digest = provenance.get("manifest_digest") or ""
    source = ", ".join(provenance.get("features") or ()) * (metrics["protocol"] != "imported")
    first = _score(TITLES[metrics["primary_metric"]], value, ends) if ends else ""
    compared = [_score(*one) for one in _compared(_expected(metrics, name))]
    tests = [c for c in metrics["comparisons"] if c["p"] is not None]
    chance = metrics.get("chance") or {}
    key = "choice" if "choice" in chance else name
    chance_text = f"{key}: p {chance[key]['p']:.3f}" if key in chance else ""
    n_groups, n_clips = metrics["groups"], metrics["clips"]
    grouped = f"{n_clips} clips in {n_groups} groups" if n_groups < n_clips else ""
    lost = ", ".join(f"{name} {n}" for name, n in metrics.get("missing", {}).items() if n)
    audited = count(len(metrics.get("audit", ())), "finding") * bool(settings.get("audit"))
    data = f"{metrics['name']}, {n_clips} clips" + f", digest {digest[:12]}" * bool(digest)
    return [
        ("data", data, ""),
        ("source", "", "cite the data set, with its version and where it can be found"),
        ("licence", "", "state the licence of the media and of the labels"),
        ("groups", grouped, "every clip is its own group: are songs, artists or films shared?"),
        ("what a group is", "", "song, artist, album or source video"),
        ("annotators", _annotators(metrics), "number and agreement"),
        ("emotion that was asked for", "", "perceived, felt or intended"),
        ("folds", f"{metrics['folds']}, seed {metrics['seed']}", ""),
        ("features and weights", source, "the program that made them, its version and weights"),
        ("tuning inside the folds", "penalty and model" * bool(settings), "what, and how"),
        ("primary score with interval", first, "an interval"),
        ("scores of meta-analyses", "; ".join(compared), "MCC, or r and R2"),
        ("baseline", metrics["baseline"]["name"], ""),
        ("test against a simpler model", count(len(tests), "pair") * bool(tests), "a paired test"),
        ("check on random labels", chance_text, "mvemo-cv FEATURES --permute-labels 20"),
        ("audit of the data", audited, "mvemo audit FEATURES"),
        ("clips without a feature", lost or "none", ""),
        ("software", "versions above" if provenance.get("versions") else "", "names, versions"),
    ]


def methods_of_run(run: Path, *, json: bool = False) -> str:
    """Return the methods text of a run's folder, or of its ``metrics.json``."""
    path = run / "metrics.json" if run.is_dir() else run
    try:
        metrics = text_files.read_json(path)
    except MissingFile as error:
        raise MissingFile(f"{error}: 'mvemo fuse ... --out {run}' writes it") from None
    except BadFile as error:
        cure = f"'mvemo fuse {run}' makes a run of features"
        raise BadFile(f"{error}: expected the folder of a run: {cure}") from None
    try:
        return files.dump_json(methods_facts(metrics)).rstrip() if json else methods_text(metrics)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{error} is missing or unknown" if isinstance(error, KeyError) else error
        raise BadOption(f"{path}: is not the metrics of an evaluation: {why}") from None
