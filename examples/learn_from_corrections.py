"""Make a better model from corrected labels of a folder's clips.

    python examples/learn_from_corrections.py songs/ corrections.csv my-model [MODEL]

corrections.csv has the columns path and label, and group if clips belong together.
"""

import json
import subprocess
import sys


def main(folder: str, corrections: str, out: str, model: str = "music-video") -> None:
    # The catalogue keeps the features, so that learning reads no media.
    catalogue = f"{out}.h5"
    command = ["mvemo", "predict", folder, "--model", model, "--cache", catalogue]
    subprocess.run(command, check=True)
    command = ["mvemo", "learn", corrections, "--features", catalogue, "--model", model]
    command += ["--out", out, "--json"]
    learned = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    result = json.loads(learned.stdout)
    print(result["text"])
    print("use it with: mvemo predict", folder, "--model", result["model"])


if __name__ == "__main__":
    main(*sys.argv[1:])
