"""The report of an evaluation: page, text, figures and files."""
