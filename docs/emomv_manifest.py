"""Make a manifest of EmoMV's annotation files: those given as arguments, to stdout.

Their lines are: folder, clip name, match flag, music emotion, video emotion, two class
numbers. Clips whose flag is 1 are music and pictures that belong together; the others
(`A_PAIR_B`) pair one clip's music with another's pictures and have no one emotion.
"""

import csv
import re
import sys

# Pieces of one source: `X-k-of-n`, and in DS3 a video id of 11 characters and a number.
PIECE = re.compile(r"-\d+-of-\d+$|(?<=^.{11})_\d+$")

rows = csv.writer(sys.stdout, lineterminator="\n")
rows.writerow(["clip_id", "path", "label", "group", "split"])
for path in sys.argv[1:]:
    split = "val" if "_VAL_" in path else "train"
    with open(path, newline="", encoding="utf-8") as file:
        for folder, name, match, emotion, *_ in csv.reader(file):
            if match == "1":
                group = PIECE.sub("", name)
                rows.writerow([name, f"{folder}{name}.mp4", emotion.lower(), group, split])
