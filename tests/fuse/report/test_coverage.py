"""Facts on the coverage of prediction sets: the asked share is held, by each task's own sets."""

import pytest
from feature_samples import frozen_cache, make_table
from output_samples import output_cache, output_table

from mvemo.cache import open_cache
from mvemo.fuse import EvaluationSettings, HeadSettings, evaluate
from mvemo.fuse.report.coverage import coverage_facts, coverage_sentence, coverage_table


@pytest.fixture(scope="module", params=["multiclass", "multilabel", "regression"])
def results(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("coverage") / "f.h5"
    if request.param == "multiclass":
        frozen_cache(path, make_table(120, 3), names=("music1d", "c3d"))
    else:
        output_cache(path, output_table(request.param, n=120))
    settings = EvaluationSettings(head=HeadSettings(C=0.1), n_resamples=50)
    with open_cache(path) as cache:
        return evaluate(cache, settings)


def test_all_at_once_is_told_next_to_each_output(results):
    facts = coverage_facts(results)
    sentence, table = coverage_sentence(results, facts), coverage_table(results, facts)
    other = facts["optional"]["share"]
    shares = [one["optional"]["share"] for one in facts["per_output"].values()]
    if results.task.name == "regression":
        once = facts["all_at_once"]
        assert once < facts["share"] < 1
        assert once <= other <= min(shares)
        assert f"{100 * once:.1f} % of the clips" in sentence
        assert [row[0].text for row in table.foot] == ["all", "all at once"]
    else:
        assert facts["all_at_once"] is None
        assert min(shares) <= other or results.task.name == "multilabel"
        assert f"{100 * min(shares):.1f} to {100 * max(shares):.1f} %" in sentence
    # Few groups are warned of.
    facts = {**facts, "groups": 19}
    assert "come from only 19 groups: below 20" in coverage_sentence(results, facts)
    assert "come from only" not in coverage_sentence(results, {**facts, "groups": 20})
