"""Laws of nfad.trials: shapes are what they say, kept promises are kept, and a broken one is called broken."""
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from nfad.core import allowed_alarms
from nfad.promises import flag_batch
from nfad.score import conformal_p_values
from nfad.trials import PROMISES, SHAPES, plot_trials, try_promise, try_promises


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_knows_its_tail(name):
    drawn = SHAPES[name].draw(np.random.default_rng(0), 100_000)
    for level in (0.5, 0.9, 0.99, 0.999):
        t = np.quantile(drawn, level)
        assert np.mean(drawn > t) == pytest.approx(SHAPES[name].beyond(t), abs=0.006)


@pytest.mark.parametrize("promise", [name for name in PROMISES if name != "windows"])
def test_promises_are_kept(promise):
    for shape in SHAPES:
        for m in (59, 200, 999): assert try_promise(promise, shape, m, 60)["verdict"] == "kept" or (promise == "p-values within groups" and m < 100), (shape, m)


BROKEN = {
    "a threshold with more alarms": lambda shape, m, rng: (shape.beyond(np.sort(shape.draw(rng, m))[-int(0.07 * m) - 1]), (allowed_alarms(m, 0.05) + 1) / (m + 1)),
    "the rate that was wished as the expected one": lambda shape, m, rng: (shape.beyond(np.sort(shape.draw(rng, m))[-allowed_alarms(m, 0.05) - 1]), 0.05),
    "p-values without the record itself": lambda shape, m, rng: (float(np.mean((conformal_p_values(shape.draw(rng, 500), shape.draw(rng, m)) * (m + 1) - 1) / m <= 0.05)), 0.05),
    "a batch by plain p-values": lambda shape, m, rng: (_wrong(conformal_p_values(np.r_[shape.draw(rng, 180), [1e12] * 20], shape.draw(rng, m)) <= 0.1), 0.1),
    "a batch with twice the rate": lambda shape, m, rng: (_wrong(flag_batch(conformal_p_values(np.r_[shape.draw(rng, 180), [1e12] * 20], shape.draw(rng, m)), 0.2)), 0.1)}


def _wrong(flagged): return flagged[:180].sum() / max(flagged.sum(), 1)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_called_broken(name): assert try_promise(BROKEN[name], "light", 60 if "record" in name or "wished" in name else 400, 1500)["verdict"] == "broken"


def test_the_table_and_its_picture():
    table = try_promises((200,), runs=4)
    assert len(table) == len(PROMISES) * len(SHAPES) and set(table) == {"promise", "shape", "m", "runs", "mean", "promised", "error", "verdict"}
    assert table.equals(try_promises((200,), runs=4))
    ax = plot_trials(table, pyplot.subplots()[1])
    assert [text.get_text() for text in ax.get_yticklabels()] == list(PROMISES)
    pyplot.close("all")
    with pytest.raises(ValueError, match="shape"): try_promise("windows", "round", 200)
    assert isinstance(table, pd.DataFrame)
