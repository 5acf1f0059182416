"""CAL500 and CAL500exp in small: files of their forms, with made-up songs."""

SONGS = ("2pac-trapped", "aaron_neville-tell_it", "abba-sos")
WORDS = (
    "Emotion-Angry_/_Agressive",
    "NOT-Emotion-Angry_/_Agressive",
    "Emotion-Happy",
    "NOT-Emotion-Happy",
    "Genre-Rock",
    "Instrument_-_Piano",
)
HEADER = "Start_Time,End_Time,Emotion-Angry_/_Agressive,Emotion-Happy,Genre-Rock\n"
# Angry, not angry, happy, not happy, rock, piano.
MATRIX = ("1,0,0,1,1,0", "0,1,1,0,0,1", "0,0,1,0,1,0")


def make_cal500(folder, *, sound=SONGS):
    """The three files of annotations and empty sound files."""
    annotations = folder / "CAL500_noAudioFeatures"
    annotations.mkdir(parents=True)
    (annotations / "songNames.txt").write_text("\n".join(SONGS) + "\n")
    (annotations / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (annotations / "hardAnnotations.txt").write_text("\n".join(MATRIX) + "\n")
    return add_sound(folder, sound)


def make_cal500exp(folder, *, sound=SONGS[:2]):
    """A table for each of two songs, soft labels beside them, and empty sound files."""
    hard, soft = folder / "SegLabelHard" / "SegLabelHard", folder / "SegLabelSoft"
    hard.mkdir(parents=True)
    soft.mkdir()
    (hard / f"{SONGS[0]}.csv").write_text(HEADER + "12.5,20,1,0,1\n0,12.5,1,1,0\n")
    (hard / f"{SONGS[1]}.csv").write_text(HEADER + "3,9.25,0,1,0\n")
    (soft / f"{SONGS[0]}.csv").write_text(HEADER + "12.5,20,0.7,0.2,1\n")
    return add_sound(folder, sound)


def add_sound(folder, names):
    (folder / "CAL500_32kps").mkdir(exist_ok=True)
    for name in names:
        (folder / "CAL500_32kps" / f"{name}.mp3").write_bytes(b"x")
    return folder
