"""Attack mvemo for an hour and a half: kills, a served page, media, damage, limits, many clips.

    python tests/soak [--seed 0] [--kills 216] [--minutes 30] [--clips 2000] [--only PART]

On a machine that is busy with other work, `--patience 10` waits ten times as long for what may
hang.
It prints what was tried and ends with exit status 1 where there was a traceback, a hang, a
lost row or a changed digest. `make soak` runs it; `make test` runs a short part of it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import soak_kills
import soak_limits
import soak_many
import soak_media
import soak_mutations
import soak_serve
from soak_tally import Tally

PARTS = ("kills", "serve", "media", "limits", "many", "mutations")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=216)
    parser.add_argument("--victim", default="", help="kill this command alone, as merge")
    parser.add_argument("--minutes", type=float, default=30.0, help="of changed files")
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--patience", type=float, default=1.0)
    options = parser.parse_args()
    tally = Tally(patience=options.patience)
    work = {
        "kills": lambda: soak_kills.soak(tally, options.seed, options.kills, options.victim),
        "serve": lambda: soak_serve.soak(tally, options.seed, max(1, options.kills // 4)),
        "media": lambda: soak_media.soak(tally, options.seed),
        "limits": lambda: (soak_limits.soak(tally), soak_limits.soak_full_disk(tally)),
        "many": lambda: soak_many.soak(tally, options.clips),
        "mutations": lambda: soak_mutations.soak(tally, options.seed, options.minutes),
    }
    for part in options.only or PARTS:
        start = time.monotonic()
        work[part]()
        print(f"{part}: {(time.monotonic() - start) / 60:.1f} minutes", flush=True)
    print("\n".join(tally.lines()))
    sys.exit(1 if tally.faults else 0)


if __name__ == "__main__":
    main()
