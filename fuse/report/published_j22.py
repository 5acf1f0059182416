"""Published figures of J22: its Tables 1 to 4, and the numbers in its text on Figs. 7 and 8.

All shares are fractions. They were measured on 2,906 songs of four classes, which are not
public. They are context, never a target. The paper contradicts itself in places, and all
figures are kept as printed: the CNN at 10 s has 0.8036 in Table 2 and 0.8108 in Table 3; the
text calls Table 3's 0.9265 92.5 %; the proposed model has at most 0.8825 in Table 2 and 0.9206
in Fig. 8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mvemo.manifests import SCHEMES

SOURCE = (
    "X. Jia, A music emotion classification model based on the improved convolutional neural "
    "network, Computational Intelligence and Neuroscience, 2022"
)

# Table 1: length of a segment in seconds -> number of segments, rounded as printed.
TABLE_1: Mapping[float, int] = {3.0: 23000, 5.0: 14000, 10.0: 7000, 16.0: 3000}

# Table 2: net -> seconds -> accuracy. The "improved CNN" is the CRNN with Bi-LSTM, `crnn` here.
TABLE_2: Mapping[str, Mapping[float, float]] = {
    "cnn": {3.0: 0.6919, 5.0: 0.7558, 10.0: 0.8036, 16.0: 0.8371},
    "crnn": {3.0: 0.7683, 5.0: 0.8106, 10.0: 0.8692, 16.0: 0.8825},
}

# Table 3: net -> (accuracy on the training set, on the test set).
TABLE_3: Mapping[str, tuple[float, float]] = {
    "cnn": (0.9265, 0.8108),
    "lightcnn": (0.8971, 0.8554),
}

# Table 4: net -> true class -> shares of the predicted classes, in the order of
# `TABLE_4_CLASSES`. The paper calls relaxation "quiet" in this table.
TABLE_4_CLASSES = ("sad", "happy", "anger", "relaxation")
TABLE_4: Mapping[str, Mapping[str, tuple[float, float, float, float]]] = {
    "cnn": {
        "sad": (0.8629, 0.0613, 0.0457, 0.0301),
        "happy": (0.0705, 0.7643, 0.0928, 0.0724),
        "anger": (0.0664, 0.0845, 0.7406, 0.1085),
        "relaxation": (0.0586, 0.0418, 0.0967, 0.8029),
    },
    "crnn": {
        "sad": (0.9254, 0.0306, 0.0228, 0.0212),
        "happy": (0.0516, 0.8388, 0.0675, 0.0421),
        "anger": (0.0519, 0.0526, 0.8007, 0.0948),
        "relaxation": (0.0278, 0.0295, 0.0634, 0.8793),
    },
}

# Fig. 7, from the text of section 3.3: number of iterations, the iteration from which the loss
# is stable, and that loss.
FIGURE_7_ITERATIONS = 2500
FIGURE_7_STABLE_FROM = 1500
FIGURE_7_LOSS = 0.98

# Fig. 8, from the text of section 3.6. All classifiers of reference [14] share one number.
# Reference [19] has two: 3.25 points above [14], which is 0.8478, and 1.92 points below the
# proposed model, which would be 0.9014. The text gives no number for [17].
FIGURE_8: Mapping[str, float] = {
    "classical": 0.8153,
    "rnn": 0.8478,
    "crnn": 0.9206,
}


def known_classes(names: Sequence[str]) -> list[str]:
    """Return J22's names for a data set's classes, or an empty list if they differ from its four.

    Examples
    --------
    >>> known_classes(["calm", "happy", "sad", "angry"]), known_classes(["calm", "fear"])
    (['relaxation', 'happy', 'sad', 'anger'], [])
    """
    known = [str(SCHEMES["j22"].class_of(name)) for name in names]
    return known if sorted(known) == sorted(TABLE_4_CLASSES) else []
