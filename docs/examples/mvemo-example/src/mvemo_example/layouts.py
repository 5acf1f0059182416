"""Layout of a data set, as the path of a TOML file; docs/public-data.md lists the keys."""

from pathlib import Path

MOODS = Path(__file__).with_name("moods.toml")
