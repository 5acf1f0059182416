"""Labels mapped to the papers' classes."""

from importlib import resources
from pathlib import Path

import pytest

from mvemo.manifests import SCHEMES, BadManifest, Clip, Manifest, apply_scheme, find_scheme
from mvemo.manifests.files import parse_toml

PL20, J22 = SCHEMES["pl20"], SCHEMES["j22"]

# PL20 Table 1 as printed, but for Hate under Sad.
TABLE_1 = {
    "Exciting": "Happy Fun Love Sexy Joy Pleasure Exciting Adorable Cheerful Surprising Interest",
    "Fear": "Horror Fear Scary Disgust Terror",
    "Neutral": "Ecstasy Mellow",
    "Relaxation": "Calm Chill Relaxing",
    "Sad": "Depressing Melancholic Sentimental Shameful Distress Anguish",
    "Tension": "Anger Hate Rage",
}


def make(*labels: str, task: str = "multiclass") -> Manifest:
    tags = [label.split(";") if label else [] for label in labels]
    clips = tuple(Clip(str(i), f"{i}.mp4", tuple(t), str(i)) for i, t in enumerate(tags))
    classes = tuple(sorted({name for t in tags for name in t}))
    return Manifest("m", task, classes, clips, Path())  # type: ignore[arg-type]


@pytest.mark.parametrize("class_name", TABLE_1)
def test_every_adjective_of_table_1(class_name: str) -> None:
    for word in TABLE_1[class_name].split():
        assert PL20.class_of(word) == class_name
        assert PL20.class_of(word.upper()) == class_name


def test_a_little_of_any_class_is_neutral() -> None:
    for word in ("Sad", "Fearful", "Exciting", "Relax"):
        assert PL20.class_of(f"Little {word}") == "Neutral"
        assert PL20.class_of(f"little_{word}") == "Neutral"
        assert PL20.class_of(f"Little ({word})") == "Neutral"


def test_spellings() -> None:
    for word in ("Excited", "Exciting", "Excitation", "exciting", " EXCITED "):
        assert PL20.class_of(word) == "Exciting"
    assert PL20.class_of("bored") is None
    assert PL20.classes == ("Exciting", "Fear", "Neutral", "Relaxation", "Sad", "Tension")


def test_ravdess_words_are_the_four_classes() -> None:
    words = ("angry", "happy", "calm", "sad")
    assert tuple(J22.class_of(word) for word in words) == J22.classes
    assert J22.class_of("fearful") is None
    # Table 4's word for relaxation.
    assert J22.class_of("Quiet") == "relaxation"


def test_a_word_of_two_classes_is_noted_where_it_is_mapped() -> None:
    manifest, notes = apply_scheme(make("Hate", "Happy", "hate"), PL20)
    assert manifest.labels.tolist() == [1, 0, 1]
    assert notes[:2] == (
        "'Hate' (1 clips): PL20's Table 1 has it under Sad as well as under Tension; "
        "here it is Tension",
        "'hate' (1 clips): PL20's Table 1 has it under Sad as well as under Tension; "
        "here it is Tension",
    )


def test_a_word_stands_for_one_class() -> None:
    text = resources.files("mvemo.manifests").joinpath("schemes.toml").read_text()
    for name in SCHEMES:
        words = [word for words in parse_toml(text)[name].values() for word in words]
        assert len({word.lower() for word in words}) == len(words)


def test_every_class_is_a_word_of_itself() -> None:
    for scheme in SCHEMES.values():
        for name in scheme.classes:
            assert scheme.class_of(name) == name


def test_labels_are_replaced_in_the_order_of_the_scheme() -> None:
    manifest, notes = apply_scheme(make("Rage", "Happy", "Excited", "Horror"), PL20)
    assert manifest.classes == ("Exciting", "Fear", "Tension")
    assert manifest.labels.tolist() == [2, 0, 0, 1]
    assert notes == ("scheme pl20: no clip of Neutral, Relaxation, Sad",)


def test_unmapped_labels_are_all_named() -> None:
    manifest = make("happy", "fearful", "neutral", "sad", "fearful")
    with pytest.raises(BadManifest, match=r"no class for 'fearful' \(2\), 'neutral' \(1\)"):
        apply_scheme(manifest, J22)
    kept, notes = apply_scheme(manifest, J22, drop_unmapped=True)
    assert kept.clip_ids == ("0", "3")
    assert notes[0].startswith("dropped")
    with pytest.raises(BadManifest, match="no label is one of"):
        apply_scheme(make("x", "y"), J22, drop_unmapped=True)


def test_tags_are_merged() -> None:
    manifest, _ = apply_scheme(make("Happy;Fun;Horror", "", "Rage", task="multilabel"), PL20)
    assert manifest.clips[0].label == ("Exciting", "Fear")
    assert manifest.clips[1].label == ()


def test_what_has_no_scheme() -> None:
    clip = Clip("a", "a", (0.5,), "a")
    with pytest.raises(BadManifest, match="not numbers"):
        apply_scheme(Manifest("m", "regression", ("v",), (clip,), Path()), PL20)
    with pytest.raises(BadManifest, match="one of pl20, j22"):
        find_scheme("pl21")
