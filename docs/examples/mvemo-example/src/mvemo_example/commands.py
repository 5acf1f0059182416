"""A command: the number of clips and songs of a feature file."""

from pathlib import Path

import click

from mvemo.cache import open_cache


@click.command()
@click.argument("features", type=click.Path(path_type=Path))
def songs(features):
    """Print the number of clips and songs of FEATURES."""
    with open_cache(features) as cache:
        groups = cache.table.groups
    click.echo(f"{len(groups)} clips of {len(set(groups))} songs")
