"""Predict the emotion of all songs and videos in a folder, and list the most certain ones.

python examples/predict_folder.py songs/ [MODEL]
"""

import sys

import mvemo


def main(folder: str, model: str | None = None) -> None:
    records = mvemo.predict(folder, model=model)
    for record in records:
        if record.get("error"):
            print(f"{record['path']}: {record['error']}")
    # A model of ratings gives values, and one of classes a label with its confidence.
    predicted = [record for record in records if not record.get("error")]
    predicted.sort(key=lambda record: -(record.get("confidence") or 0.0))
    for record in predicted[:20]:
        print(record["path"], record.get("label") or record["values"])


if __name__ == "__main__":
    main(*sys.argv[1:])
