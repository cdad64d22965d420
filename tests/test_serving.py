"""Laws of a model in service: only what was saved is loaded, and every row gets a score or a reason."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from nfad.detector import FlowDetector
from nfad.files import score_files
from nfad.recipes import plain_recipe
from nfad.seen import remember, write_seen
from nfad.serving import find_reasons, load_model, model_bytes, restore_model, score_rows, usable_records
from nights import DAMAGE, NAMES, damage, detector, fuzz, model, model_path, records, traffic


@given(DAMAGE)
@settings(fuzz, max_examples=1000)
def test_fuzz_model_file(tmp_path_factory, model_path, detector, how):
    damaged = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    content = damage(model_path.read_bytes(), *how)
    damaged.write_bytes(content)
    try: loaded = restore_model(model_bytes(damaged))
    except ValueError: return
    X = traffic(5)
    assert np.array_equal(loaded.anomaly_score(X), detector.anomaly_score(X))  # only bytes without a meaning changed


@pytest.mark.parametrize("first", [b"\xff" * 8, (10**9).to_bytes(8, "little"), b""])
def test_hostile_sizes(tmp_path, first):
    (tmp_path / "m.safetensors").write_bytes(first + b"{}")
    with pytest.raises(ValueError): restore_model(model_bytes(tmp_path / "m.safetensors"))


# ---------------------------------------------------------------- loading

def test_a_loaded_model_is_the_saved_one(detector, model_path):
    for source in (model_path, str(model_path), model_path.read_bytes(), detector):
        loaded = load_model(source)
        assert np.array_equal(loaded.detector.anomaly_score(traffic(20, 4)), detector.anomaly_score(traffic(20, 4)))
        assert loaded.threshold == detector.threshold_ and loaded.features == NAMES
        assert loaded.identity == load_model(model_path).identity or source is detector
    assert load_model(model_path, fpr=0.2).threshold < detector.threshold_


def test_other_models_have_other_names(detector, model_path, tmp_path):
    other = FlowDetector.load(model_path).calibrate(traffic(500, 7)).save(tmp_path / "other.safetensors")
    assert load_model(other).identity != load_model(model_path).identity


def test_the_reference_of_drift(detector):
    thin = load_model(detector, reference=traffic(800, 3), n_reference=100)
    assert 90 < len(thin.reference.records) <= 100 and thin.reference.names == tuple(NAMES)
    assert (detector.anomaly_score(thin.reference.records) <= thin.threshold).all()
    with pytest.raises(KeyError, match="the reference of drift needs"): load_model(detector, reference=traffic(80)[NAMES[:2]])
    few = load_model(detector, reference=traffic(30)).reference
    assert few.records is None and "by the score alone" in few.lacking


def test_what_a_model_has_seen_comes_with_its_file(detector, tmp_path):
    assert load_model(detector).seen is None
    path = write_seen(detector.save(tmp_path / "m.safetensors"), remember(traffic(1000)))
    loaded = load_model(path, reference=pd.concat([traffic(1000), traffic(800, 3)]))
    assert np.array_equal(loaded.seen.rows, remember(traffic(1000)).rows) and load_model(path.read_bytes()).seen.total == 1000
    assert (loaded.seen.places(loaded.reference.records) < 0).all() and len(loaded.reference.records) > 700
    assert np.array_equal(loaded.detector.anomaly_score(traffic(20, 4)), detector.anomaly_score(traffic(20, 4)))


# ---------------------------------------------------------------- any rows

def law_every_row_is_answered(score, model):
    "A finite row has the detector's score, p-value and decision, any other a reason and nothing else."
    X = records()[NAMES].to_numpy()
    found = score(X)
    good = np.isfinite(X).all(axis=1)
    scores = model.detector.anomaly_score(X[good])
    assert np.array_equal(found["anomaly_score"][good], scores) and np.isnan(found["anomaly_score"][~good]).all()
    assert np.array_equal(found["is_anomaly"][good].astype(bool), scores > model.threshold)
    assert np.equal(found["reason"], None).tolist() == good.tolist() == np.isfinite(found["p_value"]).tolist()


def test_law_every_row_is_answered(model): law_every_row_is_answered(lambda X: score_rows(model, X), model)


def test_law_every_row_is_answered_catches_a_guess(model):
    with pytest.raises(AssertionError): law_every_row_is_answered(lambda X: score_rows(model, np.nan_to_num(X, posinf=1e9)), model)
    with pytest.raises(AssertionError): law_every_row_is_answered(lambda X: score_rows(model, X[::-1]), model)


def test_no_rows_and_no_good_rows(model):
    for X in (np.empty((0, 4)), np.full((3, 4), np.nan)):
        assert all(len(values) == len(X) for values in score_rows(model, X).values())


def test_reasons():
    rows = np.array([[1, 2, 3, 4], [np.nan, np.inf, 3, 4], [1, -np.inf, np.nan, 4], [1, 2, 3, 4]])
    said = find_reasons(rows, NAMES, np.array([None, None, None, "empty line"])).tolist()
    assert said == [None, "no number in 'Flow Duration'", "infinite in 'Total Fwd Packets'", "empty line"]


# ---------------------------------------------------------------- records of a user

def law_rows_are_used_or_named(read, path, n_rows, recipe):
    "Whatever the limit, rows read = records used + rows named."
    for limit in (None, 0, 1, 100, 289, 290, 291, 10_000):
        found = read(path, recipe, limit)
        assert len(found.records) + sum(found.left_out.values()) == n_rows
        assert len(found.records) == min(290, 290 if limit is None else limit) and np.isfinite(found.records).all(axis=None)
        assert len(found.records) == 290 or f"{len(found.records)} of {n_rows} " in found.told("records")[0]


@pytest.fixture
def mixed(tmp_path):
    "A folder of 300 rows, ten of which are none, in two files; and a file that is no table."
    folder = tmp_path / "in"
    folder.mkdir()
    rows = traffic(300, 7)
    rows.iloc[:6, 1], rows.iloc[200:204, 3] = np.nan, np.inf
    rows[:180].to_parquet(folder / "a.parquet")
    rows[180:].to_csv(folder / "b.csv", index=False)
    (folder / "notes.docx").write_text("x")
    return folder


def test_law_rows_are_used_or_named(mixed): law_rows_are_used_or_named(usable_records, mixed, 300, plain_recipe(NAMES))


def test_law_rows_are_used_or_named_catches_who_stops_at_the_limit(mixed):
    def hasty(path, recipe, limit):
        found = usable_records(path, recipe, limit)
        return found._replace(left_out=found.left_out | {"beyond the limit": 0})
    with pytest.raises(AssertionError): law_rows_are_used_or_named(hasty, mixed, 300, plain_recipe(NAMES))


def test_a_cut_reference_of_drift_says_so(detector, mixed, tmp_path, monkeypatch):
    "In words of the model, and of the account of a run that uses it."
    assert load_model(detector, reference=traffic(800, 3)).reference.cut == ""
    monkeypatch.setattr("nfad.serving.usable_records", lambda path, recipe: usable_records(path, recipe, 200))
    loaded = load_model(detector, reference=mixed)
    assert loaded.reference.cut == ("200 of 300 reference records used; 10 without a score, 90 beyond the limit were left out; "
                                    "file left out: notes.docx (ending .docx)")
    report = score_files(loaded, mixed / "a.parquet", tmp_path / "s.parquet", progress=False)
    assert report.note.startswith(loaded.reference.cut) and loaded.reference.cut in report._repr_html_()
