"""Attack mvemo for an hour and a half: kills, a served page, media, damage, limits, many clips.

    python tests/soak [--seed 0] [--kills 216] [--minutes 30] [--clips 2000] [--only PART]

On a busy machine, `--patience 10` waits ten times as long for a command that may hang. The exit
code is 1 after a traceback, a hang, a lost row or a changed digest. `make soak` runs it.
"""

import argparse
import sys
import time
from pathlib import Path

# Samples that the soak shares with the tests.
sys.path.extend(
    str(Path(__file__).parents[1] / place)
    for place in ("cache", "extract", "goldens", "pipeline", "pipeline/desk/serve")
)

import soak_commands
import soak_media
import soak_mutations
import soak_serve
from soak_tally import Tally

PARTS = ("kills", "serve", "media", "limits", "many", "mutations")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=216)
    parser.add_argument("--victim", default="", help="kill only this command, such as merge")
    parser.add_argument("--minutes", type=float, default=30.0, help="of changed files")
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--patience", type=float, default=1.0)
    options = parser.parse_args()
    tally = Tally(patience=options.patience)
    seed, kills = options.seed, options.kills
    work = {
        "kills": lambda: soak_commands.soak_kills(tally, seed, kills, options.victim),
        "serve": lambda: soak_serve.soak(tally, seed, max(1, kills // 4)),
        "media": lambda: soak_media.soak(tally, seed),
        "limits": lambda: soak_commands.soak_limits(tally) or soak_commands.soak_full_disk(tally),
        "many": lambda: soak_commands.soak_many(tally, options.clips),
        "mutations": lambda: soak_mutations.soak(tally, seed, options.minutes),
    }
    for part in options.only or PARTS:
        start = time.monotonic()
        work[part]()
        print(f"{part}: {(time.monotonic() - start) / 60:.1f} minutes", flush=True)
    print("\n".join(tally.lines()))
    sys.exit(1 if tally.faults else 0)


if __name__ == "__main__":
    main()
