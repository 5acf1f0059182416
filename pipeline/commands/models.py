"""Command ``mvemo models``: the models that come with mvemo, and the cards of models."""

from __future__ import annotations

import click


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME|FOLDER]...")
def models(names: tuple[str, ...]) -> None:
    """List the models that come with mvemo, or print the cards of models, also of your own.

    A card says what a model was made of, its licence, how well it predicted clips that
    were left out, and what it is not for.

    \b
    Examples:
      mvemo models
      mvemo models film-music
      mvemo models out/model
    """
    from mvemo.pipeline.models.boxed import DEFAULT, boxed_names, model_folder
    from mvemo.pipeline.models.card import card_text, summary_lines

    if names:
        click.echo("\n\n".join(card_text(name, model_folder(name)) for name in names))
        return
    for name in boxed_names():
        click.echo("\n".join(summary_lines(name, model_folder(name))))
    click.echo(
        f"\n'mvemo predict FILE' takes {DEFAULT}; --model NAME another, --model FOLDER your own."
        "\n'mvemo models NAME' prints a model's card."
    )
