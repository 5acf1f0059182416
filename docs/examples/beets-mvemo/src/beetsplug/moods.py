"""Moods of mvemo as fields of the library of beets, in lists, queries and smart playlists.

Probabilities have the names that AcousticBrainz and xtractor gave them, such as ``mood_happy``.
"""

from statistics import NormalDist
from typing import ClassVar

from beets import plugins, ui
from beets.dbcore import types

# Quadrant of valence and arousal -> field.
QUADRANTS = {
    (True, True): "mood_happy",
    (True, False): "mood_relaxed",
    (False, False): "mood_sad",
    (False, True): "mood_aggressive",
}
# Classes and tags whose field has another name; that of others is mood_ and the class.
NAMES = {
    **dict.fromkeys(("anger", "angry", "tension", "tense"), "mood_aggressive"),
    **dict.fromkeys(("excited", "exciting", "happiness", "joy"), "mood_happy"),
    **dict.fromkeys(("calm", "relaxation", "tenderness"), "mood_relaxed"),
    "sadness": "mood_sad",
}
# Files that are predicted in one call; what is done is stored after each.
STEP = 200


def fields_of(record, centre=0.0):
    """Return the fields of a record of `mvemo.predict`; empty if it was not predicted.

    Those of ratings are the probabilities that valence and arousal are above or below the centre of
    their scale. Errors are taken as normal, with the stated 90 % intervals, and as independent.
    """
    if record.get("error"):
        return {}
    fields = {"mvemo_model": record["model"]}
    if mood := record.get("label") or record.get("quadrant"):
        fields["mvemo_mood"] = mood if isinstance(mood, str) else "; ".join(mood)
    for name, share in (record.get("proba") or {}).items():
        field = NAMES.get(name.lower(), f"mood_{name.lower().replace(' ', '_')}")
        fields[field] = max(share, fields.get(field, 0.0))
    values = record.get("values") or {}
    for name, rating in values.items():
        fields[f"mvemo_{name}"] = rating["value"]
    if record.get("quadrant"):
        high = [_share_above(values[name], centre) for name in ("valence", "arousal")]
        for sides, field in QUADRANTS.items():
            valence, arousal = (p if s else 1 - p for p, s in zip(high, sides, strict=True))
            fields[field] = valence * arousal
    return fields


def _share_above(rating, centre):
    """Return the probability that the true rating is above the centre."""
    half = max(rating["high"] - rating["value"], rating["value"] - rating["low"], 1e-9)
    return 1 - NormalDist(rating["value"], half / 1.645).cdf(centre)


class MoodsPlugin(plugins.BeetsPlugin):
    """``beet moods [QUERY]``, also during ``beet import`` with ``auto: yes``."""

    item_types: ClassVar = {
        **dict.fromkeys([*QUADRANTS.values(), "mvemo_valence", "mvemo_arousal"], types.Float(3)),
        **dict.fromkeys(("mvemo_mood", "mvemo_model"), types.STRING),
    }

    def __init__(self):
        super().__init__()
        # An empty model is mvemo's default one; its ratings have the centre 0.
        self.config.add({"auto": False, "force": False, "model": "", "centre": 0.0})
        if self.config["auto"].get(bool):
            self.import_stages = [lambda session, task: self.predict(task.imported_items())]

    def commands(self):
        command = ui.Subcommand("moods", help="predict the moods of songs")
        command.parser.add_option("-f", "--force", action="store_true", help="predict again")
        command.parser.add_option("-p", "--pretend", action="store_true", help="store nothing")

        def run(library, options, words):
            force = options.force or self.config["force"].get(bool)
            items = library.items(words)
            self.predict([i for i in items if force or "mvemo_model" not in i], options.pretend)

        command.func = run
        return [command]

    def predict(self, items, pretend=False):
        """Predict items, and store their fields unless `pretend` is set."""
        import mvemo

        items, model = [*items], self.config["model"].as_str() or None
        for first in range(0, len(items), STEP):
            step = items[first : first + STEP]
            paths = [str(item.filepath) for item in step]
            try:
                records = {record["path"]: record for record in mvemo.predict(paths, model)}
            except mvemo.MvemoError as error:
                raise ui.UserError(f"mvemo: {error}") from None
            for item, path in zip(step, paths, strict=True):
                record = records.get(path, {"error": "is another name of a file in this call"})
                fields = fields_of(record, self.config["centre"].as_number())
                if not fields:
                    self._log.warning("{}: {}", path, record["error"])
                    continue
                self._log.info("{}: {}", path, fields.get("mvemo_mood", fields["mvemo_model"]))
                if not pretend:
                    item.update(fields)
                    item.store()
