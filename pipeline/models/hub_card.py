"""Model card in the form of the Hugging Face Hub: ``README.md`` of a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mvemo.fuse.final.model import load_model
from mvemo.manifests.files import write_text
from mvemo.pipeline.models.boxed import card_text

README = "README.md"


def write_hub_card(folder: Path, name: str) -> None:
    """Write the card of a model folder, with the metadata that the Hub reads from its head."""
    model = load_model(folder)
    about: dict[str, Any] = model.facts.get("about", {})
    expected = model.expected_of(model.predictors[0])
    metadata: dict[str, Any] = {
        "library_name": "mvemo",
        "tags": ["music-emotion-recognition", "audio", *model.classes],
        "pipeline_tag": "audio-classification",
        "license": "other",
        "license_name": about.get("licence", "not stated"),
    }
    value, metric = expected.get("mean"), str(expected.get("metric"))
    if value is not None:
        result = {
            "task": {"type": "audio-classification"},
            "dataset": {"name": model.name, "type": model.name},
            "metrics": [{"type": metric, "value": value, "name": f"cross-validated {metric}"}],
        }
        metadata["model-index"] = [{"name": name, "results": [result]}]
    # JSON is YAML, too.
    head = "\n".join(f"{json.dumps(key)}: {json.dumps(entry)}" for key, entry in metadata.items())
    text = card_text(name, folder)
    use = f"pip install mvemo\nmvemo predict song.mp3 --model {name}"
    write_text(folder / README, f"---\n{head}\n---\n\n```\n{text}\n```\n\n```sh\n{use}\n```\n")
