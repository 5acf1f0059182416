"""Command ``mvemo nets``: the nets, their inputs, sizes and public weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from mvemo.manifests.text_table import align_columns

if TYPE_CHECKING:
    from mvemo.extract.nets.parts.facts import NetFacts


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
