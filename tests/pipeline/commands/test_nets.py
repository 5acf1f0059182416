"""`mvemo nets`."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from mvemo.extract.errors import BadSetting
from mvemo.extract.nets import build_net, net_names
from mvemo.extract.nets.parts.facts import net_facts
from mvemo.pipeline.commands.nets import nets


def test_every_net_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvemo.extract.nets.net_names", lambda: ("i3d", "music1d", "rnn"))
    done = CliRunner().invoke(nets, [], catch_exceptions=False)
    lines = done.output.splitlines()
    assert [line.split()[0] for line in lines] == ["net", "i3d", "music1d", "rnn"]
    assert "32 frames, 224 x 224" in lines[1]
    assert "12.3 M" in lines[1]
    assert lines[1].startswith("i3d      video")
    assert "mvemo weights get i3d" in lines[1]
    # Recurrent layers are not counted, and nothing is made up in their place.
    assert " - " in lines[3]


def test_one_net_tells_its_files_and_settings() -> None:
    done = CliRunner().invoke(nets, ["music2d"], catch_exceptions=False)
    assert "accepts C17's msd_compact_cnn_theano.hdf5" in done.output
    assert "accepts its own state_dict" in done.output
    # PL20's front end in profile paper, C17's, whose window is reversed, in profile c17.
    assert '"reverse_window": false' in done.output
    options = '{"front_end": "pl20", "activation": "relu"}'
    assert f'settings in paper {{"name": "music2d", "width": 1.0, "options": {options}, ' in (
        done.output
    )
    assert 'settings in c17 {"name": "music2d", "width": 1.0, "options": {}, ' in done.output
    with pytest.raises(BadSetting, match="net 'vgg' is not known"):
        CliRunner().invoke(nets, ["vgg"], catch_exceptions=False)


def test_counts_are_those_of_the_net_itself() -> None:
    facts = net_facts("music1d")
    net = build_net("music1d", 6)
    counted = sum(p.numel() for n, p in net.named_parameters() if not n.startswith("classifier"))
    assert facts.n_parameters == counted
    # Conv1d(1, 32, 3, stride 2) over 480,000 samples alone: 240,000 outputs of 96 products.
    assert facts.n_operations is not None
    assert facts.n_operations > 240_000 * 96
    assert "music1d" in net_names()
