"""Laws of nfad.prep: feature sets and transforms."""
import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conftest import needs_data
from nfad import prep
from nfad.vocabulary import FEATURES
from nfad.prep import (FEATURE_SETS, PAPER_PAIRS, TRANSFORMS, Transform, columns_to_load, default_feature_set,
                       feature_names, feature_table, index_base, set_slug)
from nfad.training import noise_scale
from nfad.vocabulary import FIRST_RELEASE, FLOW_COLUMNS, IOT_COLUMNS, canonical_columns, column_role

KINDS = list(TRANSFORMS)
UNBOUNDED = [kind for kind in KINDS if kind != "robust"]
few = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def flow_like(n=400, seed=0):
    "Records with the habits of network features: nine decades, atoms at 0 and -1, flags, a constant, a rare value."
    rng = np.random.default_rng(seed)
    return pd.DataFrame({
        "duration": np.exp(rng.normal(10, 4, n)),
        "bytes": np.where(rng.random(n) < 0.6, 0, np.exp(rng.normal(6, 2, n))).round(),
        "window": np.where(rng.random(n) < 0.4, -1, rng.choice([229, 8192, 65535], n)),
        "flag": rng.integers(0, 2, n),
        "share": rng.integers(0, 11, n) / 10,
        "rare": (np.arange(n) == n // 2).astype(int),
        "urgent": np.zeros(n, int),
    })


# --- feature sets -------------------------------------------------------------------------------------------

def test_appendix_a():
    ids, tor = FEATURE_SETS["ids2017"], FEATURE_SETS["tor2016"]
    assert (len(ids), len(tor), len(FEATURE_SETS["ciciot2023"])) == (58, 24, 38)
    assert (ids[0], ids[13], ids[14], ids[34], ids[57]) == \
        ("Flow Duration", "Flow IAT Max", "Flow IAT Min", "SYN Flag Count", "Idle Min")
    assert (tor[0], tor[1], tor[7], tor[23]) == ("Protocol", "Flow Duration", "Flow IAT Min", "Idle Min")
    assert FEATURE_SETS["paper6"] == ("Packet Length Mean", "Flow IAT Max", "PSH Flag Count", "ACK Flag Count", "Fwd IAT Max",
                                      "Fwd Packets/s")
    assert feature_names([31, 13, 35, 36, 18, 27]) == list(FEATURE_SETS["paper6"])
    assert "Number" not in FEATURE_SETS["ciciot2023"] and not set(FIRST_RELEASE) & {*FEATURE_SETS["ciciot2023"], *FEATURE_SETS["ciciot2023_shares"]}
    assert len(FEATURE_SETS["ciciot2023_first"]) == 44 and not {"IAT", "Number", "IGMP"} & set(FEATURE_SETS["ciciot2023_first"])


def test_sets_are_made_of_described_features():
    assert FEATURES.name.is_unique and not (FEATURES == "").any(axis=None) and not FEATURES.isna().any(axis=None)
    for name, features in FEATURE_SETS.items():
        assert len(set(features)) == len(features) > 0 and set(features) <= set(FEATURES.name), name
        assert set_slug(name) == name
    for pair in PAPER_PAIRS.values(): assert set(pair) <= set(FEATURE_SETS["ids2017"])


def test_table_covers_the_vocabulary():
    on_request = {"Protocol", "ICMP Code", "ICMP Type", "Protocol Type", "Number"}
    cic = FEATURES.vocabulary.isin(["cicflowmeter", "ciciot2023"])
    assert set(FEATURES.name[cic]) == {*FLOW_COLUMNS, *IOT_COLUMNS, *FIRST_RELEASE, *on_request}
    table = feature_table(["Idle Min", "my column", "Protocol"])
    assert list(table.name) == ["Idle Min", "my column", "Protocol"] and list(table.group) == ["activity", "other", "protocol"]


def law_same_features(resolve):
    "Every way to write a request means the same list, in the order asked for."
    names = ["Packet Length Mean", "Flow IAT Max", "Flow Duration"]
    for request in ([31, 13, 0], "31,13,0", " 31, 13 ,0", "[31, 13, 0]", names, tuple(names), ", ".join(names), np.array([31, 13, 0])):
        assert list(resolve(request)) == names


def test_law_same_features(): law_same_features(feature_names)


def test_law_same_features_catches_sorting():
    with pytest.raises(AssertionError): law_same_features(lambda request: sorted(feature_names(request)))


def test_indices_count_in_the_base_that_fits():
    tor = list(FEATURE_SETS["tor2016"])
    assert feature_names("0,1", available=tor) == ["Protocol", "Flow Duration"]
    assert feature_names("0", base="tor2016") == ["Protocol"] and feature_names(0, base=["b", "a"]) == ["b"]
    assert feature_names("0,1") == ["Flow Duration", "Total Fwd Packets"]


def test_all_leaves_out_identifiers_and_ignores_file_order():
    columns = ["Flow ID", "Source IP", "Destination Port", "Timestamp", "Label", "own", "Idle Min", "Flow Duration"]
    assert feature_names("all", available=columns) == ["Flow Duration", "Idle Min", "own"]
    assert feature_names("all", available=columns[::-1]) == ["Flow Duration", "Idle Min", "own"]
    iot = feature_names("all", available=list(FEATURES.name[FEATURES.vocabulary == "ciciot2023"]))
    assert "Number" not in iot and len(iot) == 45


def test_json_file_of_a_selection(tmp_path):
    path = tmp_path / "select.json"
    path.write_text(json.dumps({"features": ["Idle Min", "Flow Duration"], "auroc": 0.9}))
    assert feature_names(str(path)) == feature_names(path) == ["Idle Min", "Flow Duration"]
    assert set_slug(path) == set_slug("Idle Min,Flow Duration")
    path.write_text(json.dumps({"features": "Idle Min"}))
    with pytest.raises(ValueError, match="list under 'features'"): feature_names(path)


@pytest.mark.parametrize("request_, available, error, words", [
    ("ids2018", None, ValueError, "did you mean 'ids2017'"),
    ("Flow IAT Mx", None, ValueError, "did you mean 'Flow IAT Max'"),
    ("31,58", None, ValueError, r"index must be in 0\.\.57, got 58"),
    ([-1], None, ValueError, r"index must be in 0\.\.57, got -1"),
    ("13,13", None, ValueError, "repeat a feature, got 'Flow IAT Max'"),
    ([13, "Flow IAT Max"], None, ValueError, "repeat a feature"),
    ("", None, ValueError, "at least one feature"),
    ([], None, ValueError, "at least one feature"),
    ("all", None, ValueError, "needs available"),
    ("all", ["Label", "Timestamp"], ValueError, "at least one feature"),
    ("ids2017", ["Flow Duration"], KeyError, "the 'ids2017' set needs 58"),
    (["Idle Min"], ["Flow Duration"], KeyError, r"records lack columns \['Idle Min'\]"),
    ([True], None, TypeError, "names or whole numbers, got True"),
    ([1.5], None, TypeError, "names or whole numbers, got 1.5"),
    (None, None, TypeError, "feature_set must be"),
    (True, None, TypeError, "feature_set must be"),
])
def test_bad_requests(request_, available, error, words):
    with pytest.raises(error, match=words): feature_names(request_, available=available)


def test_bad_base():
    with pytest.raises(ValueError, match="base must be one of"): feature_names("0", base="ids")


def law_slug_is_safe(slug_of):
    "A slug is one plain folder name, equal for equal lists and different for different ones."
    for request in ("../../etc/passwd", "Flow Bytes/s", ["..", "/"], "a\\b", "Flow Bytes/s,Idle Min", [0, 1], "x" * 5000):
        slug = slug_of(request)
        assert 0 < len(slug) < 60 and slug.replace("-", "").replace("_", "").isalnum() and slug.isascii()
    assert slug_of("31,13") == slug_of([31, 13]) == slug_of("Packet Length Mean,Flow IAT Max") != slug_of("13,31")


def test_law_slug_is_safe(): law_slug_is_safe(set_slug)


def test_law_slug_is_safe_catches_plain_text():
    with pytest.raises(AssertionError): law_slug_is_safe(str)


def test_columns_to_load():
    assert columns_to_load("all", "demo") is None
    assert columns_to_load("0,1", "tor2016") == ["Protocol", "Flow Duration"] == columns_to_load("0,1", "tor2016_15s")
    assert columns_to_load("0,Destination Port", "demo") == ["Flow Duration", "Destination Port"]
    assert columns_to_load("own,other", "a/b.csv") == ["own", "other"]
    assert columns_to_load("ids2017", "a/b.csv") == list(FEATURE_SETS["ids2017"])
    with pytest.raises(ValueError, match="did you mean 'ids2017'"): columns_to_load("ids2018", "demo")
    with pytest.raises(ValueError, match="repeat"): columns_to_load("own,own", "a/b.csv")
    with pytest.raises(ValueError, match="at least one"): columns_to_load(" , ", "demo")


def asked(source): return re.findall(r"(?:list|tuple|sorted)\(\s*feature_set\b", source)


def test_a_request_is_never_taken_apart_by_hand():
    "`list(\"all\")` is three letters; every notebook asks `columns_to_load` or `feature_names`."
    from nfad.core import repository_root
    assert not {path.name: asked(path.read_text()) for path in (repository_root() / "nbs").glob("*.ipynb") if asked(path.read_text())}
    assert asked("load_dataset(dataset, list(feature_set))")


@pytest.mark.parametrize("request_", [
    "all", "default", "ids2017", "31,13", "[31, 13]", "['Idle Min', 'Flow Duration']", "Idle Min", 31, [31, 13]])
def test_what_papermill_passes_means_columns(request_):
    columns = columns_to_load(request_, "demo")
    assert columns is None if request_ in ("all", "default") else set(columns) <= set(FEATURE_SETS["ids2017"])


def test_default_feature_sets():
    found = [default_feature_set(name) for name in ("tor2016", "tor2016_15s", "ciciot2023", "cicids2017", "demo", "a/b.csv")]
    assert [index_base(name) for name in ("tor2016_15s", "ciciot2023", "demo")] == ["tor2016", "ciciot2023", "ids2017"]
    assert found == ["tor2016", "all", "ciciot2023", "all", "all", "all"]


# --- transforms: laws ---------------------------------------------------------------------------------------

def law_sees_only_training_rows(scale):
    "Scaled training rows do not depend on which rows are tested."
    train = flow_like(seed=0)
    first, second = scale(train, flow_like(seed=1)), scale(train, flow_like(seed=2) * 1000)
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_law_sees_only_training_rows(kind):
    def scale(train, test):
        fitted = Transform(kind).fit(train)
        fitted.transform(test), fitted.constant_deviation(test), fitted.log_det(test)
        return fitted.transform(train)
    law_sees_only_training_rows(scale)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "none"])
def test_law_sees_only_training_rows_catches_leak(kind):
    with pytest.raises(AssertionError):
        law_sees_only_training_rows(lambda train, test: Transform(kind).fit(pd.concat([train, test])).transform(train))


def law_column_order_is_irrelevant(fit_and_scale):
    "Shuffled and additional columns change nothing."
    train, test = flow_like(seed=0), flow_like(seed=1)
    expected = fit_and_scale(train, test)
    assert np.array_equal(expected, fit_and_scale(train, test[test.columns[::-1]].assign(Label="benign", extra=np.nan)))


@pytest.mark.parametrize("kind", KINDS)
def test_law_column_order(kind):
    law_column_order_is_irrelevant(lambda train, test: Transform(kind).fit(train).transform(test))


def test_law_column_order_catches_positions():
    with pytest.raises(AssertionError):
        law_column_order_is_irrelevant(lambda train, test: Transform().fit(train).transform(test.to_numpy()[:, :7].astype(float)))


def law_rows_are_independent(scale):
    "A record's scaled values do not depend on the records beside it."
    rows = pd.concat([flow_like(seed=seed) for seed in range(12)], ignore_index=True)  # 4,800: several blocks
    together = scale(rows)
    for part in ([0], [2047, 2048, 4095, 4096], np.arange(4799, 0, -7)):
        assert np.array_equal(together[part], scale(rows.iloc[part]))


@pytest.mark.parametrize("kind", KINDS)
def test_law_rows_are_independent(kind): law_rows_are_independent(Transform(kind).fit(flow_like()).transform)


def test_law_rows_are_independent_catches_batch_statistics():
    def by_batch(rows): return (rows.to_numpy(float) - rows.to_numpy(float).mean(axis=0)).astype(np.float32)
    with pytest.raises(AssertionError): law_rows_are_independent(by_batch)


def law_inverse(transform, rtol=2e-4):
    "inverse(transform(x)) is x, constants included, up to the resolution of float32."
    train = flow_like(seed=0)
    back = transform.inverse(transform.transform(train))
    assert list(back.columns) == list(train.columns)
    spread = train.std().to_numpy()
    assert (np.abs(back.to_numpy() - train.to_numpy()) <= rtol * np.abs(train.to_numpy()) + 1e-5 * spread + 1e-9).all()


@pytest.mark.parametrize("kind", UNBOUNDED)
def test_law_inverse(kind): law_inverse(Transform(kind).fit(flow_like()))


def test_law_inverse_catches_clipping():
    with pytest.raises(AssertionError): law_inverse(Transform("robust").fit(flow_like()))


def law_strictly_increasing(transform, name, train):
    "Ever larger (and ever smaller) values up to 1e12 get ever larger (smaller) finite numbers."
    top, bottom = float(train[name].max()), float(train[name].min())
    far = np.geomspace(1, 1e12, 60)
    x = np.concatenate([-far[::-1] + min(bottom, 0), [bottom], [] if top == bottom else [top], far + max(top, 0)])
    if name in transform.constant_: return
    rows = pd.DataFrame(np.tile(train.iloc[0].to_numpy(float), (len(x), 1)), columns=train.columns).assign(**{name: x})
    Z = transform.transform(rows)
    assert Z.dtype == np.float32 and np.isfinite(Z).all() and np.isfinite(np.square(Z)).all()
    z = Z[:, list(transform.feature_names_out_).index(name)]
    distinct = np.diff(x) > 1e-4 * np.abs(x[1:]) + 1e-4 * (top - bottom)  # what float32 can be asked to tell apart
    assert (np.diff(z) >= 0).all() and (np.diff(z)[distinct] > 0).all() and distinct.sum() > 20


@pytest.mark.parametrize("kind", UNBOUNDED)
@pytest.mark.parametrize("name", list(flow_like().columns))
def test_law_strictly_increasing(kind, name):
    train = flow_like()
    law_strictly_increasing(Transform(kind).fit(train), name, train)


@pytest.mark.parametrize("name", ["duration", "window"])
def test_law_strictly_increasing_catches_saturation(name):
    train = flow_like()
    with pytest.raises(AssertionError): law_strictly_increasing(Transform("robust").fit(train), name, train)


def law_finite(scale, X, rows):
    "Whatever finite floats come in, finite float32 numbers come out."
    Z = scale(X, rows)
    assert Z.dtype == np.float32 and np.isfinite(Z).all()


SPITEFUL = [0.0, -0.0, 5e-324, -5e-324, 1e-310, 1e-45, float(np.finfo(np.float32).max), -float(np.finfo(np.float32).max), 1e12,
            -1e12, 1.0, 1 + 2e-16, 1e15, 1e15 + 0.125, 1.7e308, -1.7e308]
any_float = st.one_of(st.sampled_from(SPITEFUL), st.floats(allow_nan=False, allow_infinity=False),
                      st.floats(allow_nan=False, allow_infinity=False, width=32))


@pytest.mark.parametrize("kind", KINDS)
def test_law_finite(kind):
    @few
    @given(arrays(np.float64, st.tuples(st.integers(2, 12), st.integers(1, 4)), elements=any_float), st.data())
    def check(X, data):
        if not np.ptp(np.clip(X, *np.array([-1, 1]) * np.finfo(np.float32).max), axis=0).any(): return
        rows = data.draw(arrays(np.float64, (5, X.shape[1]), elements=any_float))
        law_finite(lambda X, rows: Transform(kind).fit(X).transform(rows), X, np.vstack([X, rows]))
    check()


@pytest.mark.parametrize("kind", KINDS)
def test_law_finite_on_spiteful_pairs(kind):
    largest = float(np.finfo(np.float32).max)  # inputs are cut there
    for a in SPITEFUL:
        for b in SPITEFUL:
            if np.clip(a, -largest, largest) == np.clip(b, -largest, largest): continue
            fitted = Transform(kind).fit(np.array([[a], [b], [b]]))
            rows = np.array(SPITEFUL)[:, None]
            law_finite(lambda X, rows: fitted.transform(rows), None, rows)
            assert np.isfinite(fitted.inverse(fitted.transform(rows)).to_numpy()).all()


def test_law_finite_catches_unguarded_scaling():
    X = np.array([[5e-324], [0.0], [0.0]])
    with pytest.raises(AssertionError), np.errstate(all="ignore"):
        law_finite(lambda X, rows: ((rows - X.mean(0)) / X.std(0)).astype(np.float32), X, np.array([[1.0]]))


def law_state_round_trip(through):
    "A transform that went through its state gives the same bits."
    for kind in KINDS:
        fitted, rows = Transform(kind).fit(flow_like(seed=0)), flow_like(seed=1)
        again = through(fitted)
        assert again.transform(rows).tobytes() == fitted.transform(rows).tobytes()
        assert again.constant_deviation(rows).tobytes() == fitted.constant_deviation(rows).tobytes()
        assert again.log_det(rows).tobytes() == fitted.log_det(rows).tobytes()
        assert again.inverse(again.transform(rows)).equals(fitted.inverse(fitted.transform(rows)))
        assert (again.kind, again.constant_, again.n_records_) == (fitted.kind, fitted.constant_, fitted.n_records_)
        assert list(again.feature_names_in_) == list(fitted.feature_names_in_)


def test_law_state_round_trip(tmp_path):
    from safetensors.numpy import load_file, save_file

    def through(fitted):
        state, meta = fitted.get_state()
        save_file(state, tmp_path / "transform.safetensors")
        return Transform.from_state(load_file(tmp_path / "transform.safetensors"), json.loads(json.dumps(meta)))
    law_state_round_trip(through)


def test_law_state_round_trip_catches_rounding():
    def through(fitted):
        state, meta = fitted.get_state()
        rounded = {k: v.astype(np.float32).astype(v.dtype) if v.dtype == np.float64 else v for k, v in state.items()}
        return Transform.from_state(rounded, meta)
    with pytest.raises(AssertionError): law_state_round_trip(through)


def law_log_det(log_det, transform):
    "log_det is the sum of the logarithms of the slopes, here from central differences."
    rows = pd.DataFrame({"a": [0.37, 5.3, 40.7, -3.21], "b": [0.123, 2.217, -0.531, 6.43]})
    slopes = np.zeros(len(rows))
    for name in rows:
        h = 1e-6 * (1 + rows[name].abs())
        forward = TRANSFORMS[transform.kind].forward
        high, low = (forward(rows.assign(**{name: rows[name] + s * h}).to_numpy(), **transform.arrays_) for s in (1, -1))
        slopes += np.log((high - low).sum(axis=1) / (2 * h))
    np.testing.assert_allclose(log_det(rows), slopes, atol=1e-4)


def two_columns():
    rng = np.random.default_rng(5)
    return pd.DataFrame({"a": rng.normal(20, 15, 300), "b": rng.exponential(3, 300) - 1})


@pytest.mark.parametrize("kind", UNBOUNDED)
def test_law_log_det(kind):
    fitted = Transform(kind).fit(two_columns())
    law_log_det(fitted.log_det, fitted)


def test_law_log_det_catches_forgotten_logarithm():
    fitted = Transform("log").fit(two_columns())
    with pytest.raises(AssertionError):
        law_log_det(lambda rows: np.full(len(rows), -np.log(fitted.arrays_["scale"]).sum()), fitted)


def test_log_det_of_robust_is_minus_infinity_where_it_clips():
    fitted = Transform("robust").fit(two_columns())
    assert np.isneginf(fitted.log_det(pd.DataFrame({"a": [1e6], "b": [1.0]})))[0]


def law_constants_are_not_lost(penalty):
    "A broken constant shows, and the more the further; a kept one does not."
    train = flow_like()
    rows = pd.concat([train.iloc[:1]] * 6, ignore_index=True).assign(urgent=[0.0, 1e-9, 1, 2, 1e6, 1e12])
    value = penalty(train, rows)
    assert (value[:2] == 0).all() and (np.diff(value[1:]) > 0).all() and np.isfinite(value).all()


def test_law_constants_are_not_lost():
    law_constants_are_not_lost(lambda train, rows: Transform().fit(train).constant_deviation(rows))


def test_law_constants_are_not_lost_catches_dropping():
    with pytest.raises(AssertionError): law_constants_are_not_lost(lambda train, rows: np.zeros(len(rows)))


# --- transforms: facts --------------------------------------------------------------------------------------

def test_constants_are_reported_and_come_back():
    fitted = Transform().fit(flow_like().assign(version=4))
    assert fitted.constant_ == ["urgent", "version"] and fitted.kept_.sum() == 6
    assert list(fitted.feature_names_out_) == ["duration", "bytes", "window", "flag", "share", "rare"]
    back = fitted.inverse(np.zeros((2, 6)))
    assert (back["version"] == 4).all() and (back["urgent"] == 0).all()


def test_float32_and_float64_records_agree():
    "0.1 as float32 is not 0.1, but it does not break a constant of 0.1."
    train = flow_like().assign(constant=0.1)
    fitted, single = Transform().fit(train), train.astype(np.float32)
    assert (fitted.constant_deviation(single) == 0).all()
    np.testing.assert_allclose(fitted.transform(single), fitted.transform(train), atol=1e-5)


def test_standard_and_log_have_mean_zero_and_unit_spread():
    for kind in ("standard", "log"):
        Z = Transform(kind).fit(flow_like()).transform(flow_like()).astype(float)
        np.testing.assert_allclose(Z.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(Z.std(axis=0), 1, atol=1e-4)


def test_robust_is_that_of_scikit_learn():
    from sklearn.preprocessing import RobustScaler
    X = two_columns()
    low, high = np.percentile(X, [1, 99], axis=0)
    np.testing.assert_allclose(Transform("robust").fit(X).transform(X), RobustScaler().fit_transform(X.clip(low, high, axis=1)), atol=1e-6)


def test_robust_keeps_rare_flags():
    fitted = Transform("robust").fit(flow_like())
    assert "rare" in fitted.feature_names_out_ and np.abs(fitted.transform(flow_like())).max() < 1e4


def test_quantile_makes_normal_scores():
    from scipy.stats import kstest
    X = pd.DataFrame({"a": np.random.default_rng(1).exponential(1e6, 5000)})
    Z = Transform("quantile").fit(X).transform(X)
    assert kstest(Z[:, 0], "norm").statistic < 0.01


def test_empty_input_gives_empty_output():
    for kind in KINDS: assert Transform(kind).fit(flow_like()).transform(flow_like().iloc[:0]).shape == (0, 6)


@pytest.mark.parametrize("dtype", ["float64[pyarrow]", "Float64", "float32", object])
def test_other_column_types(dtype):
    train = flow_like()
    np.testing.assert_allclose(Transform().fit(train).transform(train.astype(dtype)), Transform().fit(train).transform(train), atol=1e-5)


@pytest.mark.parametrize("spoil, error, words", [
    (lambda d: d.drop(columns="window"), KeyError, "window"),
    (lambda d: d.assign(window="many"), TypeError, "column 'window' must hold numbers"),
    (lambda d: d.assign(window=["many"] * len(d)).astype({"window": object}), TypeError, "column 'window' must hold numbers"),
    (lambda d: d.assign(window=np.where(np.arange(len(d)) == 7, np.nan, 1)), ValueError, "nan in column 'window', record 7"),
    (lambda d: d.assign(window=np.where(np.arange(len(d)) == 7, -np.inf, 1)), ValueError, "-inf in column 'window', record 7"),
    (lambda d: pd.concat([d, d[["window"]]], axis=1), ValueError, "'window' more than once"),
    (lambda d: d.to_numpy(float)[:, :3], ValueError, r"shape \(n, 7\)"),
    (lambda d: d.assign(window="many").to_numpy(), TypeError, "records must hold numbers"),
    (lambda d: d.to_numpy(float)[0], ValueError, r"shape \(n, 7\)"),
])
def test_bad_records(spoil, error, words):
    fitted = Transform().fit(flow_like())
    for method in (fitted.transform, fitted.constant_deviation, fitted.log_det):
        with pytest.raises(error, match=words): method(spoil(flow_like()))


def test_bad_fits():
    with pytest.raises(ValueError, match="did you mean 'quantile'"): Transform("quantiles")
    with pytest.raises(ValueError, match="at least 2 rows"): Transform().fit(flow_like().iloc[:1])
    with pytest.raises(ValueError, match="all 1 are constant"): Transform().fit(flow_like()[["urgent"]])
    with pytest.raises(ValueError, match="record 3"): Transform().fit(flow_like().assign(flag=np.where(np.arange(400) == 3, np.nan, 1)))
    with pytest.raises(TypeError, match="distinct texts"): Transform().fit(pd.DataFrame({0: [1.0, 2.0]}))
    with pytest.raises(TypeError, match="distinct texts"): Transform().fit(flow_like(), names=["flag", "flag"])
    with pytest.raises(ValueError, match="not fitted"): Transform().transform(flow_like())
    with pytest.raises(ValueError, match="not fitted"): Transform().inverse(np.zeros((1, 1)))
    with pytest.raises(ValueError, match="not fitted"): Transform().get_state()


@pytest.mark.parametrize("spoil", [
    lambda a, m: a.pop("kept"), lambda a, m: m.pop("names"), lambda a, m: m.update(kind="cubic"), lambda a, m: a.pop("scale"),
    lambda a, m: a.update(scale=a["scale"] * 0), lambda a, m: a.update(center=a["center"][:-1]), lambda a, m: a.update(extra=a["center"]),
    lambda a, m: a.update(center=a["center"] * np.nan), lambda a, m: m.update(names=["x"] * 7), lambda a, m: m.update(names=["x", "y"]),
    lambda a, m: a.update(kept=a["kept"].astype(float)), lambda a, m: m.update(kind="quantile"), lambda a, m: m.update(n_records=0),
    lambda a, m: a.update(constant_value=a["constant_value"] + np.inf),
])
def test_damaged_states(spoil):
    state, meta = Transform().fit(flow_like()).get_state()
    spoil(state, meta)
    with pytest.raises(ValueError): Transform.from_state(state, meta)


@pytest.mark.parametrize("name, damage", [("starts", lambda v: v[::-1]), ("knots", lambda v: v[::-1]), ("scores", lambda v: v * 0),
                                          ("starts", lambda v: v.astype(float)), ("knots", lambda v: v[:-1])])
def test_damaged_quantile_states(name, damage):
    state, meta = Transform("quantile").fit(flow_like()).get_state()
    state[name] = damage(state[name])
    with pytest.raises(ValueError): Transform.from_state(state, meta)


def test_state_is_a_copy():
    train = flow_like()
    state, meta = Transform().fit(train).get_state()
    restored = Transform.from_state(state, meta)
    before = restored.transform(train)
    state["scale"] *= 2
    assert np.array_equal(restored.transform(train), before)


# --- noise --------------------------------------------------------------------------------------------------

def law_noise_is_usable(scale_of):
    "Noise is positive, at most `fraction`, float32, and does not depend on row order."
    Z = np.column_stack([Transform().fit(flow_like()).transform(flow_like()), np.zeros(400, np.float32)])
    for by_resolution in (False, True):
        noise = scale_of(Z, fraction=0.05, by_resolution=by_resolution)
        assert noise.dtype == np.float32 and noise.shape == (Z.shape[1],)
        assert (noise > 0).all() and (noise <= np.float32(0.05)).all()
        assert np.array_equal(noise, scale_of(Z[::-1], fraction=0.05, by_resolution=by_resolution))


def test_law_noise_is_usable(): law_noise_is_usable(noise_scale)


def test_law_noise_is_usable_catches_unguarded_gaps():
    def smallest_gap(Z, fraction, by_resolution): return np.array([np.diff(np.sort(z)).min() for z in Z.T], dtype=np.float32)
    with pytest.raises(AssertionError): law_noise_is_usable(smallest_gap)


def test_bad_noise():
    with pytest.raises(ValueError, match="fraction must be"): noise_scale(np.zeros((3, 1)), fraction=0)
    with pytest.raises(ValueError, match="finite"): noise_scale(np.array([[np.nan]]))
    with pytest.raises(ValueError, match="gap_share"): noise_scale(np.zeros((3, 1)), gap_share=2)


# --- real data ----------------------------------------------------------------------------------------------

REAL = ["cicids2017/cicids2017", "cicids2017/cicids2017_improved", "tor2016/tor2016_10s", "tor2016/tor2016_15s",
        "ciciot2023/ciciot2023", "cicddos2019/cicddos2019", "csecicids2018/csecicids2018"]


@needs_data
@pytest.mark.parametrize("name", REAL)
def test_every_real_feature_is_described(data_dir, name):
    import pyarrow.parquet as pq
    names = canonical_columns(pq.read_schema(data_dir / f"{name}.parquet").names)
    wanted = [n for n in names if column_role(n) == "feature" and n not in ("label",)]
    assert len(wanted) >= 20 and set(wanted) <= set(FEATURES.name), set(wanted) - set(FEATURES.name)
    assert feature_names("all", available=names) == sorted(wanted, key=list(FEATURES.name).index)


@needs_data
@pytest.mark.parametrize("kind", KINDS)
def test_real_records_scale(data_dir, kind):
    frame = pd.read_parquet(data_dir / "cicids2017/cicids2017_improved.parquet")
    frame.columns = canonical_columns(frame.columns)
    records = frame[feature_names("ids2017", available=list(frame))].replace([np.inf, -np.inf], np.nan)
    benign = records[(frame["Label"] == "BENIGN").to_numpy() & records.notna().all(axis=1).to_numpy()]
    fitted = Transform(kind).fit(benign[:3000])
    Z = fitted.transform(records.dropna())
    assert np.isfinite(Z).all() and Z.shape[1] == fitted.kept_.sum() >= 40
    assert again_is_equal(fitted, records.dropna()[:500])
    if kind in ("log", "quantile"): assert np.abs(Z).max() < 1e4


def again_is_equal(fitted, rows):
    "Whether a state round trip keeps every bit."
    return Transform.from_state(*fitted.get_state()).transform(rows).tobytes() == fitted.transform(rows).tobytes()


def law_columns_by_name(matrix, frame, names):
    "Columns in the order of their names, as 64-bit numbers, whatever kinds of columns stand beside each other."
    assert np.array_equal(matrix(frame, names), np.column_stack([frame[name].astype("float64") for name in names]))


@pytest.mark.parametrize("kinds", [["float64"], ["int32", "float32"], ["uint8", "bool"], ["Int64", "float64"], ["object", "float64"], ["double[pyarrow]", "int64"]])
def test_law_columns_by_name(kinds):
    frame = pd.DataFrame({name: pd.Series([0, 1, 1], dtype=kind) for name, kind in zip("abcd", kinds * 4)})
    law_columns_by_name(prep._frame_matrix, frame, ["c", "a", "b"])
    with pytest.raises(AssertionError): law_columns_by_name(lambda frame, names: frame.to_numpy("float64")[:, :3], frame.assign(a=5), ["c", "a", "b"])
