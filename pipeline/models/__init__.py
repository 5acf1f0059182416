"""Models included in mvemo, by name, and the cards of models."""
