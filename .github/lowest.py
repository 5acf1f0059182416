"""Print the lowest versions of the base install that setup.cfg admits, as requirements."""

import configparser
import re
from pathlib import Path

config = configparser.ConfigParser()
config.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
for line in config["options"]["install_requires"].split("\n"):
    if line.strip():
        print(re.sub(r">=([\d.]+)(,<[\d.]+)?", r"==\1", line))
