import pytest

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.models import chosen_models, models_of

PAPERS = {"i3d": "video", "music2d": "audio", "c3d": "video", "music1d": "audio"}


def test_the_papers_nets_give_the_papers_nine_models():
    models = models_of(PAPERS)
    singles, fusions = "music1d music2d c3d i3d", "c3d+music1d i3d+music1d c3d+music2d i3d+music2d"
    assert [m.name for m in models] == [*singles.split(), *fusions.split(), "integrated"]
    by_name = {m.name: m for m in models}
    assert by_name["c3d+music1d"].features == ("c3d", "music1d")
    assert by_name["c3d+music1d"].modalities == ("audio", "video")
    assert by_name["i3d"].modalities == ("video",)
    assert set(by_name["integrated"].features) == set(PAPERS)
    # Features of others make models, too.
    models = models_of({"vggish": "audio", "slowfast": "video", "i3d": "video"})
    names = "vggish i3d slowfast i3d+vggish slowfast+vggish integrated"
    assert [m.name for m in models] == names.split()
    assert [m.name for m in models_of({"vggish": "audio"})] == ["vggish"]


def test_choosing_by_name_keeps_the_asked_order():
    chosen = chosen_models(PAPERS, ["integrated", "c3d", "c3d"])
    assert [m.name for m in chosen] == ["integrated", "c3d"]
    with pytest.raises(BadFeatures, match=r"'resnet': expected one of .*integrated"):
        chosen_models(PAPERS, ["resnet"])
    # Any features are joined by name.
    assert chosen_models(PAPERS, ["music1d+music2d"])[0].modalities == ("audio",)
    (model,) = chosen_models(PAPERS, ["i3d+c3d+music1d"])
    assert (model.features, model.modalities) == (("i3d", "c3d", "music1d"), ("audio", "video"))
    for name in ("c3d+", "c3d+c3d", "c3d+resnet", "c3d+integrated"):
        with pytest.raises(BadFeatures, match=r"or features joined by '\+'"):
            chosen_models(PAPERS, [name])
