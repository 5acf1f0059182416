"""Command ``mvemo study transfer``: train on one file of features, test on another."""

from dataclasses import asdict, replace
from pathlib import Path

import click
from click import argument, option

from mvemo.manifests.errors import BadOption
from mvemo.pipeline.commands.options import INPUT, flag, set_option


@click.command(short_help="Train on each file of features, and test on each other one.")
@argument("features", nargs=-1, required=True, type=INPUT)
@option("--scheme", metavar="NAME|quadrants", help="Map labels to shared classes.")
@flag("--json", "Print the scores as JSON.")
@set_option
def transfer(
    features: tuple[Path, ...], scheme: str | None, json: bool, overrides: tuple[str, ...]
) -> None:
    """Train on each of several FEATURES, and test on each other one.

    The classes that both sets have are used, after --scheme has mapped the labels (as in `mvemo
    manifest scan`); `quadrants` also maps ratings of valence and arousal. The loss is the
    out-of-fold score of models trained on the tested set itself, minus the score of models
    from the other set. Recordings in both sets are left out of the larger one.

    \b
    Examples:
      mvemo study transfer emomusic.h5 deam.h5
      mvemo study transfer emomv.h5 deam.h5 --scheme quadrants --json
    """
    from contextlib import ExitStack

    from mvemo.cache import open_cache
    from mvemo.fuse.tasks import TASKS
    from mvemo.fuse.transfer import transfer_all
    from mvemo.manifests import files, schemes, text_table
    from mvemo.pipeline.stage_two import settings_for

    if len({path.resolve() for path in features}) < max(2, len(features)):
        listing = ", ".join(map(str, features))
        raise BadOption(f"expected two or more different files of features, got {listing}")
    mapped = scheme if scheme in (None, "quadrants") else schemes.find_scheme(scheme).class_of
    # Only vectors are compared, so the descriptors of the profile are left out.
    settings = replace(settings_for(features[0], None, overrides), lld=())
    with ExitStack() as stack:
        caches = [stack.enter_context(open_cache(path)) for path in features]
        found = transfer_all(caches, mapped, settings)
    if json:
        click.echo(files.dump_json({"transfers": [asdict(one) for one in found]}))
        return
    head = "trained on,tested on,score,itself,loss,95 % interval,baseline,shared,clips,metric,also"
    titles = {task.primary_metric: task.primary_title for task in TASKS.values()}
    rows = [[*head.split(","), "classes"]]
    for one in found:
        scores = f"{one.score:.3f}", f"{one.own:.3f}", f"{one.loss:+.3f}"
        interval = "{:+.3f} to {:+.3f}".format(*one.interval)
        numbers = interval, f"{one.baseline:.3f}", str(one.n_shared), str(one.n_test)
        also = (
            f"{t} {transferred:.3f} (itself {itself:.3f})"
            for t, (transferred, itself) in one.others.items()
        )
        last = titles[one.metric], ", ".join(also), ", ".join(one.classes)
        rows.append([one.source, one.target, *scores, *numbers, *last])
    click.echo("\n".join(text_table.align_columns(rows, left=(0, 1, 5, 9, 10, 11))))
