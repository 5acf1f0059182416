"""Compare the predictions of two models of classes for the same clips.

python examples/compare_two_models.py songs/ MODEL OTHER_MODEL
"""

import sys

import mvemo


def main(folder: str, model: str, other: str) -> None:
    labels = [
        {record["path"]: record.get("label") for record in mvemo.predict(folder, model=name)}
        for name in (model, other)
    ]
    both = [path for path in labels[0] if labels[0][path] and labels[1].get(path)]
    differing = [path for path in both if labels[0][path] != labels[1][path]]
    print(f"the models agree on {len(both) - len(differing)} of {len(both)} clips")
    for path in differing:
        print(f"{path}: {labels[0][path]} or {labels[1][path]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
