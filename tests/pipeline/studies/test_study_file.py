"""Study files of users: one is run, and mistakes are refused in one line."""

import pytest
from stage_samples import run
from study_samples import read_tables, tiny_options

from mvemo.manifests.errors import MvemoError
from mvemo.pipeline.studies.commands import option_values
from mvemo.pipeline.studies.study_file import FOLDER, built_in, check_values, read_study

MY_STUDY = """
title = "Loss by length of segments of {net}"

[grid]
net = ["cnn"]
loss = ["softmax", "angular"]
segment = [0.4, 0.2]

[[set]]
where = { loss = "angular" }
epochs = 1

[measure]
metrics = ["accuracy", "kappa", "baseline"]
level = ["segment", "song"]

[[published]]
column = "Smith 2020"
where = { loss = "softmax", segment = [0.2] }
value = 0.81

[plot]
x = "segment"
"""
HEADS = """
title = "Heads"
sources = ["Smith, 2020"]
[grid]
combination = ["music1d+cnn"]
protocol = ["crossfit"]
labels = ["true", "shuffled"]
[vary]
protocol = ["shared"]
[[published]]
column = "Smith 2020"
where = { protocol = "frozen" }
value = 0.9
"""


@pytest.fixture
def run_file(small_set, tmp_path):
    def run_text(text, *options):
        file = tmp_path / "my.toml"
        file.write_text(text)
        places = (file, small_set, "--out", tmp_path / "out", "--work", tmp_path / "work")
        return run("mvemo", "study", "run", *places, *options, *tiny_options())

    return run_text


def test_a_study_of_ones_own_has_a_row_for_each_combination(run_file, tmp_path):
    assert run_file(MY_STUDY) == 0
    record = read_tables(tmp_path / "out", "my")
    assert record["title"] == "Loss by length of segments of cnn"
    table = record["tables"]["scores"]
    assert [column["name"] for column in table["columns"]] == [
        *("net", "loss", "seconds", "segments", "kappa", "songs", "kappa", "majority"),
        "Smith 2020",
    ]
    assert [row[:3] for row in table["rows"]] == [
        ["cnn", loss, seconds] for loss in ("softmax", "angular") for seconds in (0.4, 0.2)
    ]
    assert [row[-1] for row in table["rows"]] == [None, 0.81, None, None]
    assert all(0 <= row[3] <= 1 for row in table["rows"])
    # Two folds of each row.
    assert len(list((tmp_path / "work" / "nets").iterdir())) == 8


def test_heads_on_several_nets_are_compared_by_protocol(run_file, tmp_path, capsys):
    assert run_file(HEADS, "--runs", "2") == 0
    record = read_tables(tmp_path / "out", "my")
    rows = [row[:3] for row in record["tables"]["scores"]["rows"]]
    kinds = (("crossfit", "true"), ("crossfit", "shuffled"), ("shared", "shuffled"))
    assert rows == [["music1d+cnn", *kind] for kind in kinds]
    assert (record["data"]["runs"], record["sources"]) == (2, ["Smith, 2020"])
    # A figure of one's own that matches no row is not a question of the papers' classes.
    printed = capsys.readouterr().out
    assert "Smith 2020: no row matches its 'where'." in printed
    assert "Published values" not in printed


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('net = ["cnn"]', 'nett = ["cnn"]', "grid: unknown 'nett'; expected one of net, comb"),
        ('net = ["cnn"]', "", "grid: expected nets to compare, such as net = "),
        ('"angular"]', '"anglar"]', "grid.loss: unknown 'anglar'; expected one of softmax, an"),
        ('["cnn"]', '["vgg"]', "grid.net: unknown net 'vgg'; expected one of c3d"),
        ("0.2]\n\n", "-1]\n\n", "grid.segment: expected 0 or more, got -1"),
        ("0.2]\n\n", '"x"]\n\n', "grid.segment: unknown 'x'; expected seconds"),
        ("epochs = 1", "epochs = 0", "set.epochs: epochs is 0: it must be above 0"),
        ("epochs = 1", "epoch = 1", "set: unknown 'epoch'; expected one of net"),
        ('loss = "angular" }', 'los = "angular" }', "set.where: unknown 'los'"),
        ("[plot]", "[plott]", "unknown key plott; expected one of title, help, sources"),
        ('x = "segment"', 'x = "lr"', "plot.x: unknown 'lr'; expected one of net, loss, segm"),
        ("value = 0.81", "value = true", "published[0].value: expected a number or a string"),
        ("value = 0.81", "", "published[0]: the key value is missing"),
        ("value = 0.81", 'value = 1\nrule = "j23"', "published.rule: unknown 'j23'; expected"),
        ('"song"]', '"album"]', "measure.level: unknown 'album'; expected one of segment, s"),
        ('of {net}"', 'of {nett}"', "title, in braces: unknown 'nett'; expected one of net"),
        ("title =", "titel =", "title: expected a string"),
        ("title =", "run = 'j23'\ntitle =", "run: unknown 'j23'; expected one of robustness"),
        ("title =", "runs = 2.5\ntitle =", "runs: expected an integer, got 2.5"),
        ("title =", "runs = 0\ntitle =", "runs: expected 1 or more, got 0"),
        ("title =", "run = 'robustness'\ntitle =", "run: 'robustness' needs options.models"),
        ('["cnn"]', "[]", "grid.net: expected at least one value"),
        ('x = "segment"', 'x = "loss"', "plot.x: expected a numeric axis, got value 'softmax'"),
        ("value = 0.81", "value = 'J23.x'", "published.value: unknown 'J23.x'; expected a nu"),
        ("title =", "title", "not TOML"),
    ],
)
def test_a_mistake_in_a_study_file_names_file_key_and_what_is_possible(tmp_path, old, new, message):
    assert old in MY_STUDY
    path = tmp_path / "my.toml"
    path.write_text(MY_STUDY.replace(old, new, 1))
    with pytest.raises(MvemoError) as error:
        check_values(read_study(path))
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def test_an_unknown_metric_is_refused_before_anything_is_trained(run_file, tmp_path, capsys):
    assert run_file(MY_STUDY.replace('"kappa"', '"kapa"')) == 2
    (line,) = (x for x in capsys.readouterr().err.splitlines() if "kapa" in x)
    assert "my.toml: measure.metrics: unknown 'kapa'; expected one of score, test" in line
    assert not (tmp_path / "work" / "nets").exists()


@pytest.mark.parametrize("name", sorted(built_in()))
def test_a_copy_of_a_built_in_study_has_the_values_of_its_command(name, tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(
        "mvemo.pipeline.studies.commands.conduct",
        lambda file, options: found.append(option_values(file, options)) or 0,
    )
    (tmp_path / "m.csv").touch()
    given = [tmp_path / "m.csv", "--out", tmp_path]
    assert run("mvemo", "study", name, *given) == 0
    assert run("mvemo", "study", "run", FOLDER / f"{name}.toml", *given) == 0
    command, own = ({**values, "net": None, "nets": None} for values in found)
    assert own == command


def test_the_built_in_studies_name_known_nets_and_values():
    assert len(built_in()) == 11
    for file in built_in().values():
        assert check_values(file).grid == file.grid
