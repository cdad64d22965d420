"""Laws of nfad.crowds: windows that hold what was asked, shares that are shares of the marked, means over classes."""
import numpy as np
import pandas as pd
import pytest

from nfad.crowds import Traffic, draw_rows, look_at_window, macro_found, plot_found, study_windows
from nfad.windows import Placed, UsualWindows


@pytest.fixture(scope="module")
def traffic():
    rng = np.random.default_rng(0)
    placed = lambda x: Placed(x, np.square(x).sum(axis=1))
    copies = 0.01 * rng.normal(size=(40, 4))
    test = placed(np.concatenate([rng.normal(size=(400, 4)), copies]))
    calm = placed(rng.normal(size=(1500, 4)))
    usual = UsualWindows(100, rng.normal(size=(400, 4)), calm)
    return Traffic(usual, np.sort(calm.scores), test, np.repeat(["benign", "copies"], [400, 40]))


def test_a_window_holds_what_was_asked(traffic):
    for name, k in (("copies", 10), ("burst", 20), ("benign", 0)):
        rows, marked = draw_rows(traffic, name, k, [3, k])
        assert len(set(rows.tolist())) == 100 and marked.sum() == k
        assert (traffic.attack[rows] == "copies").sum() == (k if name == "copies" else 0)
        assert np.array_equal(rows, draw_rows(traffic, name, k, [3, k])[0])
    rows, marked = draw_rows(traffic, "burst", 20, [5])
    spread = lambda some: traffic.test.place[some].std(axis=0).mean()
    assert spread(rows[marked]) < 0.7 * spread(rows[~marked])


def law_look(look, traffic):
    "Copies are found together and not alone, and shares are of the marked records only."
    rows, marked = draw_rows(traffic, "copies", 20, [1])
    found = look(traffic, rows, marked)
    assert found["alone_0.01"] == 0 and found["window_0.01"] > 0.8 and found["others_window_0.01"] < 0.1
    assert found["window_0.05"] >= found["window_0.01"] and found["others_alone_0.05"] < 0.2


def test_law_look(traffic): law_look(look_at_window, traffic)


def test_law_look_catches_shares_of_all_records(traffic):
    everyone = lambda traffic, rows, marked: look_at_window(traffic, rows, np.arange(len(rows)) > 0)
    with pytest.raises((AssertionError, KeyError)): law_look(everyone, traffic)


def rows_of(name, share, found): return {"dataset": "d", "n": 100, "seed": 0, "class": name, "share": share, "others_window_0.01": 0.02,
                                         **dict.fromkeys(["alone_0.01", "window_0.01", "alone_0.05", "window_0.05"], found)}


def law_macro(macro):
    "Classes weigh the same, however many seeds have them; bursts and benign windows are no classes."
    table = pd.DataFrame([rows_of("a", 0.05, 1.0), rows_of("a", 0.05, 1.0), rows_of("b", 0.05, 0.0),
                          rows_of("burst", 0.05, 0.3), rows_of("benign", 0.0, np.nan)])
    found, = macro(table).to_dict("records")
    assert found["window_0.01"] == 0.5 and found["classes"] == 2 and found["burst_0.01"] == 0.3 and found["benign_0.01"] == 0.02


def test_law_macro(): law_macro(macro_found)


def test_law_macro_catches_means_over_rows():
    def pooled(table):
        calm = table["class"].isin(["benign", "burst"])
        return macro_found(table).assign(**{"window_0.01": table.loc[~calm, "window_0.01"].mean()})
    with pytest.raises(AssertionError): law_macro(pooled)


def test_a_study_of_the_embedded_set():
    table = study_windows("demo", 40, shares=(0.1,), n_draws=1, hidden=8, epochs=1)
    assert {"benign"} < set(table["class"]) and (table["k"].isin([0, 4])).all() and table["lowest"].between(0, 0.5).all()
    assert plot_found(macro_found(table)).get_xscale() == "log"
    with pytest.raises(ValueError, match="n must be a whole number >= 20"): study_windows("demo", 5)
