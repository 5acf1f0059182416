"""Follow the emotion of a song over time, and find where it changes.

python examples/timeline_of_a_song.py song.mp3 timelines/ [MODEL]
"""

import csv
import subprocess
import sys
from itertools import pairwise
from pathlib import Path


def main(song: str, out: str, model: str = "songs") -> None:
    options = ["--timeline", "--timeline-to", out, "--window", "10", "--hop", "2"]
    subprocess.run(["mvemo", "predict", song, "--model", model, *options], check=True)
    # One page to look at, and one table with a row for each window.
    with Path(out, f"{Path(song).stem}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    if "arousal" in rows[0]:
        lively = max(rows, key=lambda row: float(row["arousal"]))
        print(f"most lively from {lively['start']} to {lively['stop']} s")
    else:
        turns = [f"{b['start']} s" for a, b in pairwise(rows) if a["label"] != b["label"]]
        print("the mood changes at", ", ".join(turns) or "no time")


if __name__ == "__main__":
    main(*sys.argv[1:])
