"""Laws of nfad.detector: its contract, its file, the default statistic."""
import builtins
import json
import pickle
import re
import struct
from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from pzflow import Flow
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from threadpoolctl import ThreadpoolController, threadpool_limits

from nfad import detector as module
from nfad.nearest import NearestPoints
from nfad.engine import BLOCK
from nfad.architectures import build_flow
from nfad.statistics import GaussianSurprise, ProfileStatistic
from nfad.training import History
from nfad.detector import PRESETS, FlowDetector

from flows import MILD, UNBOUNDED, X, compilations, law_constants_are_kept, law_round_trip, law_strange_is_ordered, quick, records, run_child, strange


# --- the detector's contract --------------------------------------------------------------------------------

def test_scikit_learn_contract():
    d = FlowDetector(hidden=24, fpr=0.05, feature_order=["a", "b"])
    copy = clone(d)
    assert copy is not d and copy.get_params() == d.get_params() and set(d.get_params()) == set(PRESETS["paper"]) | {
        "feature_order", "n_layers", "hidden", "n_bins", "n_points", "latent_df", "caution", "n_members", "validation_fraction", "patience", "fpr", "seed", "progress"}
    assert d.set_params(epochs=3).epochs == 3 and copy.epochs == FlowDetector().epochs
    with pytest.raises(ValueError, match="depth"): d.set_params(depth=3)
    with pytest.raises(TypeError): FlowDetector(depth=3)
    assert is_outlier_detector(d)


def test_a_detector_prints_what_is_not_usual():
    assert repr(FlowDetector()) == "FlowDetector()" and repr(FlowDetector(hidden=16, feature_order=["a"])) == "FlowDetector(feature_order=['a'], hidden=16)"
    assert eval(repr(quick(seed=3)), {"FlowDetector": FlowDetector}).get_params() == quick(seed=3).get_params()
    assert "FlowDetector" in repr(FlowDetector(feature_order=np.array(["a", "b"])))


def test_scikit_learn_tools_use_it(tmp_path):
    "Pipelines, cross-validation and grid search treat it as an outlier detector of their own."
    attack = np.arange(320) % 8 == 0
    frame = X[["duration", "bytes"]].mask(np.tile(attack[:, None], 2), 1e9)
    pipe = make_pipeline(FunctionTransformer(np.log1p), quick(transform="standard", epochs=2)).fit(X[["duration", "bytes"]])
    assert is_outlier_detector(pipe) and pipe.predict(frame)[attack].max() == -1 and pipe.decision_function(frame).shape == pipe.score_samples(frame).shape == (320,)
    assert clone(pipe).get_params()["flowdetector__epochs"] == 2 and pipe.set_params(flowdetector__epochs=1)[-1].epochs == 1
    flags = quick(epochs=2, fpr=0.1).fit_predict(X)
    assert set(flags) == {-1, 1} and np.array_equal(flags, quick(epochs=2, fpr=0.1).fit(X).predict(X)) and (flags == -1).mean() < 0.3
    benign_first = [(np.flatnonzero(~attack)[:240], np.r_[np.flatnonzero(~attack)[240:], np.flatnonzero(attack)])]
    scores = cross_val_score(quick(epochs=2), frame, np.where(attack, -1, 1), scoring="roc_auc", cv=benign_first)
    assert scores.shape == (1,) and scores[0] > 0.95
    search = GridSearchCV(quick(epochs=1), {"latent_df": [3.0, 5.0]}, scoring="roc_auc", cv=benign_first, refit=False)
    assert len(search.fit(frame, np.where(attack, -1, 1)).cv_results_["params"]) == 2


# Those that fit on 20 records or more. By name: the parameter `transform` makes scikit-learn's collection of checks take the detector for a transformer.
CHECKS = ("check_estimator_cloneable", "check_estimator_repr", "check_no_attributes_set_in_init", "check_parameters_default_constructible",
          "check_get_params_invariance", "check_set_params", "check_valid_tag_types", "check_estimators_unfitted", "check_fit_score_takes_y")


@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learn_checks(name):
    from sklearn.utils import estimator_checks
    getattr(estimator_checks, name)("FlowDetector", FlowDetector(hidden=16, n_layers=2, epochs=1, batch_size=16))


def law_decisions_agree(detector, frame):
    "Score, distance, decision and threshold say the same, with `>` for anomalies."
    scores, decision, label = detector.anomaly_score(frame), detector.decision_function(frame), detector.predict(frame)
    if detector.statistic == "log_prob": assert np.array_equal(scores, -detector.log_prob(frame))
    assert np.array_equal(detector.score_samples(frame), -scores) and detector.threshold_ == -detector.offset_
    assert np.array_equal(decision, detector.score_samples(frame) - detector.offset_)
    assert np.array_equal(label == -1, scores > -detector.offset_) and set(label) <= {-1, 1}
    assert np.array_equal(label == -1, decision < 0) and np.array_equal(decision, -scores - detector.offset_)


def test_law_decisions_agree(detector):
    frame = pd.concat([X, X.iloc[:50] * 20], ignore_index=True)
    assert {-1, 1} == set(detector.predict(frame))
    law_decisions_agree(detector, frame)
    assert -detector.offset_ in detector.calibration_scores_  # an observed score, so ties are met


def test_law_decisions_agree_catches_at_least(detector):
    class AtLeast(FlowDetector):
        def predict(self, X): return np.where(self.decision_function(X) <= 0, -1, 1)
    wrong = AtLeast()
    vars(wrong).update(vars(detector))
    wrong.calibrate(X)
    with pytest.raises(AssertionError): law_decisions_agree(wrong, X)
    detector.calibrate(X[:32])


def test_law_decisions_agree_catches_the_weaker_score(profiled):
    class Density(FlowDetector):
        def score_samples(self, X): return self.log_prob(X)
    weaker = Density()
    vars(weaker).update(vars(profiled))
    with pytest.raises(AssertionError): law_decisions_agree(weaker, X)


def test_a_pipeline_forwards_the_score(profiled):
    "Not the plain log density, which ranks worse."
    pipe = make_pipeline(FunctionTransformer(), profiled)
    assert np.array_equal(pipe.score_samples(X), -profiled.anomaly_score(X)) and not np.allclose(pipe.score_samples(X), profiled.log_prob(X))


@pytest.mark.parametrize("X", ["records.csv", 3, [1.0, 2.0], None], ids=str)
def test_what_is_no_table_is_refused(X, detector):
    for ask in (FlowDetector().fit, detector.anomaly_score):
        with pytest.raises(ValueError, match=r"X must be a DataFrame or an array of shape \(n, d\), got \w+ of shape"): ask(X)


def law_calibration_keeps_its_promise(calibrated):
    "At most a fraction `fpr` of the calibration records is flagged, and no lower observed score would do."
    for fpr in (1e-6, 0.01, 0.05, 0.1, 0.29, 0.5, 0.999):
        for m in (1, 2, 3, 10, 99, 100, 101, 320):
            scores, threshold = calibrated(fpr, X[:m])
            assert (scores > threshold).mean() <= fpr and threshold in scores
            lower = scores[scores < threshold]
            assert not len(lower) or (scores > lower.max()).mean() > fpr - 1e-9


def calibrated_with(detector, fpr, frame):
    d = FlowDetector()
    vars(d).update(vars(detector))
    d.set_params(fpr=fpr).calibrate(frame)
    return d.anomaly_score(frame), -d.offset_


def test_law_calibration_keeps_its_promise(detector): law_calibration_keeps_its_promise(partial(calibrated_with, detector))


def test_law_calibration_keeps_its_promise_catches_one_alarm_too_many(detector):
    def wrong(fpr, frame):
        scores = np.sort(calibrated_with(detector, fpr, frame)[0])
        return scores, scores[max(len(scores) - 2 - int(fpr * len(scores)), 0)]
    with pytest.raises(AssertionError): law_calibration_keeps_its_promise(wrong)


def test_calibration_scores_stay_with_the_model(detector):
    d = FlowDetector()
    vars(d).update(vars(detector))
    assert d.calibrate(X[:30]) is d and np.array_equal(d.calibration_scores_, np.sort(d.anomaly_score(X[:30])))
    with pytest.raises(ValueError, match="at least one benign record"): d.calibrate(X[:0])
    again = d.set_calibration(d.anomaly_score(X[:50])[::-1])
    assert again.threshold_ == FlowDetector.calibrate(d, X[:50]).threshold_
    with pytest.raises(ValueError, match="scores must be finite"): d.set_calibration(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="fpr must be a number in"): d.set_params(fpr=2).set_calibration(np.ones(3))


def law_columns_by_name(score, frame):
    "Columns are found by name: order and further columns change nothing, a missing one is named."
    scores = score(frame)
    assert np.array_equal(score(frame[frame.columns[::-1]]), scores)
    assert np.array_equal(score(frame.assign(Label="BENIGN", extra=np.nan)), scores)
    for name in frame:
        with pytest.raises(KeyError, match=name): score(frame.drop(columns=name))


def test_law_columns_by_name(detector): law_columns_by_name(detector.anomaly_score, X[:50])


def test_law_columns_by_name_catches_positions(detector):
    with pytest.raises((AssertionError, ValueError)): law_columns_by_name(lambda f: detector.anomaly_score(f.to_numpy()), X[:50])


def test_frames_and_arrays(detector, untrained):
    assert list(detector.feature_names_in_) == list(X) and detector.n_features_in_ == 5
    assert np.array_equal(detector.anomaly_score(X.to_numpy()), detector.anomaly_score(X))
    d = quick(epochs=1).fit(X.to_numpy())
    assert list(d.feature_names_in_) == ["x0", "x1", "x2", "x3", "x4"] and np.isfinite(d.anomaly_score(X.to_numpy())).all()
    with pytest.raises(ValueError, match="shape"): detector.anomaly_score(X.to_numpy()[:, :3])
    with pytest.raises(ValueError, match="shape"): detector.anomaly_score(X.to_numpy()[0])
    with pytest.raises(KeyError, match="x0"): d.anomaly_score(X)
    assert np.array_equal(detector.anomaly_score(X.astype("float32").astype("float64")), detector.anomaly_score(X.astype("float32")))


UNFITTED = {"anomaly_score": (X,), "score_samples": (X,), "log_prob": (X,), "decision_function": (X,), "predict": (X,), "log_prob_terms": (X,),
            "to_latent": (X,), "calibrate": (X,), "sample": (3,), "save": ("never.safetensors",)}


@pytest.mark.parametrize("method", UNFITTED)
def test_not_fitted_is_said(method):
    with pytest.raises(NotFittedError, match="fit"): getattr(FlowDetector(), method)(*UNFITTED[method])


BAD = {"architecture": ["mlp", None, "Autoregressive"], "statistic": ["nll", None, 1], "transform": ["minmax", None], "optimizer": ["lbfgs", 3], "n_layers": [0, 1.5, True],
       "hidden": [0, -3, "64"], "epochs": [0, 2.0, None], "n_members": [0, 2.5, None], "caution": [0, 1.5, None, 101], "batch_size": [0, -1], "patience": [0, None], "n_bins": [1, 0, 1000, 10**6], "n_points": [1, 0, 2.5, "few"],
       "seed": [-1, 0.5, None, "a"], "learning_rate": [0, -1, 10, np.nan, "fast", None], "latent_df": [0, -2, np.inf, np.nan],
       "noise": [-0.1, 1, np.nan, None, "gaps"], "validation_fraction": [0, 1, None], "fpr": [0, 1, -0.1, np.nan, "1%"]}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in BAD.items() for value in values])
def test_bad_parameters_are_named_before_any_work(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must"): FlowDetector(**{name: value}).fit(None)


def test_every_parameter_is_checked():
    "All parameters but `feature_order`, whose check needs the records, and `progress`, of which any value means something."
    assert set(BAD) == set(FlowDetector().get_params()) - {"feature_order", "progress"}


@pytest.mark.parametrize("n", [0, 1, 5, 7])
def test_too_few_records(n, untrained):
    for given in (n, n + 2 * (n > 0)):  # two are held out
        with pytest.raises(ValueError, match="at least 8 benign records"): quick().fit(X[:given])
    with pytest.raises(ValueError, match="at least 8 benign records"): quick().fit(X[:n], validation=X)


@pytest.mark.parametrize("options", [{"statistic": "profile"}, {"n_members": 2}, {"transform": "quantile"}, {"noise": "resolution"}, {"statistic": "profile", "n_points": 2}, {"architecture": "coupling", "statistic": "log_prob"}])
def test_ten_records_make_a_detector(tmp_path, options):
    "Finite scores, a threshold at the highest of three calibration records, and the same after loading."
    detector = quick(epochs=1, **options).fit(X[:10]).calibrate(X[10:13])
    scores = detector.anomaly_score(X[13:])
    assert detector.n_train_ == 8 and np.isfinite(scores).all() and detector.threshold_ == detector.anomaly_score(X[10:13]).max()
    assert np.array_equal(FlowDetector.load(detector.save(tmp_path / "few.safetensors")).anomaly_score(X[13:]), scores)


def law_three_calibration_records(detectors):
    "One new benign record in four is above the highest of three."
    rates = [(scores[3:] > scores[:3].max()).mean() for scores in detectors]
    assert abs(np.mean(rates) - 0.25) < 3 * np.std(rates) / len(rates) ** 0.5, np.mean(rates)


def test_law_three_calibration_records():
    detector = quick(epochs=1).fit(X[:10])
    scores = detector.anomaly_score(X[10:])
    shuffled = [np.random.default_rng(i).permutation(scores) for i in range(200)]
    law_three_calibration_records(shuffled)
    with pytest.raises(AssertionError): law_three_calibration_records([np.sort(scores)[[0, 1, 2, *range(3, len(scores), 2)]]] * 200)


def test_an_empty_validation_part_is_refused(untrained):
    with pytest.raises(ValueError, match="validation must hold at least 1 benign records, got 0"): quick().fit(X, validation=X[:0])
    with pytest.raises(ValueError, match="validation must hold at least 2 benign records, got 1"): quick(statistic="profile").fit(X, validation=X[:1])


def test_validation_records_are_not_trained_on(untrained):
    d = quick(epochs=1).fit(X, validation=records(50, seed=9))
    assert d.n_train_ == len(X) and len(d.calibration_scores_) == 50
    assert quick(epochs=1).fit(X).n_train_ == 288  # a tenth is cut off


def test_a_detector_can_be_copied_and_pickled(detector):
    "As scikit-learn's tools do to send it to other processes. (A pickle is no model file: `save` is.)"
    copy = pickle.loads(pickle.dumps(detector))
    assert np.array_equal(copy.anomaly_score(X), detector.anomaly_score(X)) and copy.get_params() == detector.get_params()


def test_the_paper_preset_is_the_released_protocol():
    d = FlowDetector.preset("paper")
    assert (d.architecture, d.transform, d.optimizer, d.learning_rate, d.epochs, d.noise) == ("pzflow", "standard", "sgd", 1e-3, 100, 0.0)
    assert FlowDetector.preset().get_params() == FlowDetector().get_params()
    assert FlowDetector.preset("paper", epochs=7, optimizer=None).get_params() == d.get_params() | {"epochs": 7}
    with pytest.raises(ValueError, match="preset must be one of.*did you mean 'paper'"): FlowDetector.preset("papers")
    with pytest.raises(ValueError, match="unknown parameters.*epoch"): FlowDetector.preset("paper", epoch=3)


def test_the_paper_flow_is_pzflow_default(paper):
    "The same bijectors, with the same settings, as pzflow builds when it is given none."
    default = Flow(["duration", "bytes"], latent=None)
    Z = pd.DataFrame(paper.transform_.transform(MILD), columns=["duration", "bytes"])
    default._set_default_bijector(Z, seed=0)
    assert [part[0] for part in default._bijector_info[1]] == [part[0] for part in paper.flow_._bijector_info[1]]
    assert jax.tree.map(jnp.shape, default._params) == jax.tree.map(jnp.shape, paper.flow_._params)
    assert default.latent.info[0] == paper.flow_.latent.info[0]
    assert np.isfinite(paper.anomaly_score(MILD * 9)).all() and paper.log_prob_terms(MILD).shape == (len(X), 1)


@pytest.fixture(scope="module")
def tuned(): return FlowDetector.preset("tuned", epochs=2, batch_size=144).fit(MILD)


def test_the_tuned_preset_is_a_strong_rival(tuned):
    "Four couplings of eight bins and 64 hidden units, Adam, one cycle of rates."
    assert (tuned.architecture, tuned.optimizer, FlowDetector.preset("tuned").epochs) == ("coupling", "adam", 100)
    couplings = tuned.flow_._bijector_info
    assert sum(part[0] == "NeuralSplineCoupling" for part in couplings[1]) == 4 and "64" in repr(couplings) and "(8" in repr(couplings)
    assert tuned.log_prob_terms(MILD).shape == (320, 1) and np.isfinite(tuned.anomaly_score(MILD)).all() and tuned.history_.validation_loss[-1] < 20
    with pytest.raises(ValueError, match="n_members"): FlowDetector.preset("tuned", n_members=2).fit(MILD)


def test_only_the_tuned_flow_has_a_cycle_of_rates(monkeypatch, untrained):
    seen = []
    monkeypatch.setattr(Flow, "train", lambda *args, optimizer, **settings: seen.append(optimizer) or [[1.0, 1.0], [1.0, 1.0]])
    for name in ("tuned", "paper"): FlowDetector.preset(name, epochs=1).fit(MILD)
    for optimizer, cycles in zip(seen, (True, False)):
        state, steps = optimizer.init(jnp.ones(1)), []
        for _ in range(2):
            update, state = optimizer.update(jnp.ones(1), state)
            steps.append(float(update[0]))
        assert (abs(steps[1] / steps[0] - 1) > 1e-3) == cycles


def test_law_round_trip_of_the_tuned_flow(tuned, tmp_path):
    law_round_trip(tuned, FlowDetector.load, tuned.save(tmp_path / "model.safetensors"), strange(MILD))


def law_flow_is_pzflow(detector, frame):
    "The flow is pzflow's: its log_prob of a DataFrame is the sum of the terms, and it samples."
    flow, names = detector.flow_, list(detector.transform_.feature_names_out_)
    scaled = pd.DataFrame(detector.transform_.transform(frame), columns=names)
    assert isinstance(flow, Flow) and list(flow.data_columns) == names
    log_prob = np.asarray(flow.log_prob(scaled[names[::-1]]))
    assert np.abs(log_prob - detector.log_prob_terms(frame).sum(axis=1)).max() < 1e-4
    drawn = flow.sample(50, seed=1)
    assert list(drawn) == names and len(drawn) == 50 and np.isfinite(drawn.to_numpy()).all()


def test_law_flow_is_pzflow(detector, paper):
    law_flow_is_pzflow(detector, X[:64])
    law_flow_is_pzflow(paper, MILD[:64])


def test_law_flow_is_pzflow_catches_missing_terms(detector):
    class Short(FlowDetector):
        def log_prob_terms(self, X): return super().log_prob_terms(X)[:, 1:]
    short = Short()
    vars(short).update(vars(detector))
    with pytest.raises(AssertionError): law_flow_is_pzflow(short, X[:64])


def test_samples_look_like_records(detector):
    drawn = detector.sample(400, seed=3)
    assert list(drawn) == list(X) and (drawn.version == 4).all() and detector.sample(400, seed=3).equals(drawn)
    low, high = np.log(X.duration).quantile([0.05, 0.95])
    assert low < np.log(drawn.duration.clip(lower=1)).median() < high
    with pytest.raises(ValueError, match="^n must"): detector.sample(0)


def test_an_unknown_architecture_and_a_single_feature_for_pzflow(untrained):
    with pytest.raises(ValueError, match="architecture"): build_flow("glow", ["a"], [0], None)
    with pytest.raises(ValueError, match="at least 2 features"): build_flow("pzflow", ["a"], [0], np.array([[0.0], [1.0]]))
    with pytest.raises(ValueError, match="order"): build_flow("autoregressive", ["a", "b"], [0, 0], None)
    d = quick(epochs=1).fit(X[["gap"]])
    assert d.log_prob_terms(X).shape == (len(X), 1)


# --- item 7: the model file ---------------------------------------------------------------------------------

def test_law_round_trip(detector, saved): law_round_trip(detector, FlowDetector.load, saved, strange(X))


def test_law_round_trip_of_the_paper_flow(paper, tmp_path):
    law_round_trip(paper, FlowDetector.load, paper.save(tmp_path / "model.safetensors"), strange(MILD))


@pytest.mark.parametrize("transform", ["standard", "quantile"])
def test_law_round_trip_of_transforms(fitted, transform, tmp_path):
    law_round_trip(fitted(transform), FlowDetector.load, fitted(transform).save(tmp_path / "m.safetensors"), strange(X))


def test_law_round_trip_catches_forgotten_weights(detector, saved):
    def forgetful(path):
        other = FlowDetector.load(path)
        other._set_flow(other._bounds)
        return other
    with pytest.raises(AssertionError): law_round_trip(detector, forgetful, saved, X)


def test_loading_runs_no_code(saved, monkeypatch):
    def never(*args, **kwargs): raise AssertionError("loading a model must not unpickle, evaluate or execute")
    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (builtins, "eval"), (np, "load")): monkeypatch.setattr(module, name, never)
    FlowDetector.load(saved)
    content = saved.read_bytes()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    assert json.loads(content[8:start]) and b"cnumpy" not in content and b"c__builtin__" not in content and not content.startswith(b"\x80")
    source = __import__("pathlib").Path(module.__file__).read_text()
    assert not re.search(r"\b(pickle|joblib|dill|eval\(|exec\(|np\.load)\b", source)


def refuses(path, match=None):
    "Loading says, in a ValueError that names the file, why not."
    with pytest.raises(ValueError, match=match) as caught: FlowDetector.load(path)
    assert str(path) in str(caught.value)


def law_damage_is_seen(load, content, folder, detector):
    "After any bit is flipped a file is refused, or (e.g. 1e-3 to 1E-3) still means exactly the same."
    path, header = folder / "damaged.safetensors", 8 + struct.unpack("<Q", content[:8])[0]
    rng = np.random.default_rng(0)
    places = [*range(10), *rng.integers(8, header, 60), *rng.integers(header, len(content), 25), header - 1, header, len(content) - 1]
    places += [found.start() + found.group().rindex(found.group()[-1:]) for found in re.finditer(rb'\\"(offset|constant_cost|n_records|latent_df)\\": \d', content)]
    for place in places:
        for bit in ((0, 2) if place >= header else range(7)) if place > 10 else range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            try: load(path)
            except ValueError as error: assert str(path) in str(error)
            else: assert header_of(path) == header_of_bytes(content, folder), (int(place), bit, bytes(content[place - 20:place + 20]))


def header_of(path):
    with safe_open(path, framework="numpy") as file: return json.loads(file.metadata()["nfad"])


def header_of_bytes(content, folder):
    (folder / "whole.safetensors").write_bytes(content)
    return header_of(folder / "whole.safetensors")


def test_law_damage_is_seen(saved, tmp_path, detector):
    law_damage_is_seen(FlowDetector.load, saved.read_bytes(), tmp_path, detector)


def test_law_damage_is_seen_catches_a_loader_without_hash(saved, tmp_path, detector, monkeypatch):
    without_hash(monkeypatch)
    content = detector.save(tmp_path / "unsealed.safetensors").read_bytes()
    with pytest.raises(AssertionError): law_damage_is_seen(FlowDetector.load, content, tmp_path, detector)


@pytest.mark.parametrize("share", [0, 0.0001, 0.002, 0.05, 0.3, 0.7, 0.999])
def test_a_truncated_file_is_refused(saved, tmp_path, share):
    content, path = saved.read_bytes(), tmp_path / "short.safetensors"
    path.write_bytes(content[:int(share * len(content))])
    refuses(path)
    path.write_bytes(content + b"more")
    refuses(path)


def bfloat16_file(path):
    "What other programs write: a tensor type that numpy does not have."
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\x00\x3f\x80\x3f")


FOREIGN = {"text": lambda p: p.write_text("duration,bytes\n1,2\n" * 50), "zeros": lambda p: p.write_bytes(bytes(4096)),
           "pickle": lambda p: p.write_bytes(pickle.dumps({"weights": np.zeros(3)})), "npz": lambda p: np.savez(p.open("wb"), a=np.zeros(3)),
           "random": lambda p: p.write_bytes(np.random.default_rng(0).bytes(4096)),
           "weights of another program": lambda p: save_file({"w": np.zeros((3, 3))}, p),
           "with other metadata": lambda p: save_file({"w": np.zeros(3)}, p, metadata={"format": "pt"}),
           "metadata that is no JSON": lambda p: save_file({"w": np.zeros(3)}, p, metadata={"nfad": "{"}),
           "metadata that is a list": lambda p: save_file({"w": np.zeros(3)}, p, metadata={"nfad": "[1]"}),
           "a later format": lambda p: save_file({"w": np.zeros(3)}, p, metadata={"nfad": '{"format": "nfad-flow-99"}'}),
           "endless brackets": lambda p: save_file({"w": np.zeros(3)}, p, metadata={"nfad": "[" * 200_000}),
           "endless digits": lambda p: save_file({"w": np.zeros(3)}, p, metadata={"nfad": '{"format": ' + "9" * 9000 + "}"}),
           "a header longer than the file": lambda p: p.write_bytes(struct.pack("<Q", 2**62) + b"{}"),
           "a header of 200 MB": lambda p: p.write_bytes(struct.pack("<Q", 2 * 10**8) + b"{" * 64),
           "bfloat16": bfloat16_file}


@pytest.mark.parametrize("kind", FOREIGN)
def test_files_of_other_programs_are_refused(kind, tmp_path):
    FOREIGN[kind](tmp_path / "model.safetensors")
    refuses(tmp_path / "model.safetensors")


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises((FileNotFoundError, ValueError), match=re.escape(str(path))): FlowDetector.load(path)


def without_hash(monkeypatch):
    "Every file has the same hash, so that a forged one has the right one."
    monkeypatch.setattr("nfad.core._hash_model", lambda arrays, header: "0" * 64)


def forged(detector, path, change, monkeypatch):
    "The file of `detector` after `change(arrays, header)`, with a hash that fits."
    without_hash(monkeypatch)
    detector.save(path)
    with safe_open(path, framework="numpy") as file:
        arrays, header = {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["nfad"])
    change(arrays, header)
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, path, metadata={"nfad": json.dumps(header)})
    return path


def drop(name): return lambda arrays, header: arrays.pop(name)
def swap(name, new): return lambda arrays, header: arrays.update({name: new(arrays[name])})
def claim(**parameters): return lambda arrays, header: header["parameters"].update(parameters)
def write(**entries): return lambda arrays, header: header.update(entries)
def poke(value):
    def put(weights):
        weights = weights.copy()
        weights.flat[3] = value
        return weights
    return put


FORGERIES = {
    **{f"without {name}": drop(name) for name in ("flow.0", "flow.7", "calibration_scores", "bounds", "transform.center", "transform.kept")},
    **{f"header without {key}": (lambda arrays, header, key=key: header.pop(key)) for key in ("parameters", "transform", "offset", "constant_cost", "history", "n_train")},
    "NaN weights": swap("flow.4", poke(np.nan)), "infinite weights": swap("flow.4", poke(np.inf)),
    "weights of another shape": swap("flow.4", lambda w: w[:, :-1]), "weights turned": swap("flow.6", lambda w: w.swapaxes(-1, -2).copy()),
    "whole numbers as weights": swap("flow.4", lambda w: w.astype(np.int32)), "double weights": swap("flow.4", lambda w: w.astype(np.float64)),
    "NaN calibration scores": swap("calibration_scores", poke(np.nan)), "no calibration scores": swap("calibration_scores", lambda s: s[:0]),
    "calibration scores in a table": swap("calibration_scores", lambda s: s.reshape(2, -1)),
    "unsorted calibration scores": swap("calibration_scores", lambda s: s[::-1].copy()),
    "a scale of zero": swap("transform.scale", lambda s: 0 * s), "no feature kept": swap("transform.kept", lambda k: k & False),
    "another width": claim(hidden=17), "another depth": claim(n_layers=3), "other bins": claim(n_bins=9), "other transform": claim(transform="quantile"),
    "the other architecture": claim(architecture="pzflow"), "an unknown architecture": claim(architecture="evil"), "a width beyond memory": claim(hidden=10**7),
    "a depth beyond memory": claim(n_layers=10**9), "a size beyond any number": claim(hidden=10**30), "another number of members": claim(n_members=2), "far too many members": claim(n_members=10**6), "a hundred and one members": claim(n_members=101), "an unknown parameter": claim(command="rm"),
    "a wrong type": claim(hidden="16"), "df of zero": claim(latent_df=0), "an order of other features": claim(feature_order=["a"]),
    "parameters as a list": write(parameters=[1]), "parameters as null": write(parameters=None), "transform as null": write(transform=None),
    "offset as text": write(offset="low"), "offset NaN": write(offset=float("nan")), "offset as null": write(offset=None), "cost infinite": write(constant_cost=float("inf")),
    "a count as text": write(n_train="many"), "history as a list": write(history=[1]),
    "infinitely many records": lambda arrays, header: header["transform"].update(n_records=float("inf")),
    "names as numbers": lambda arrays, header: header["transform"].update(names=5),
    "names twice": lambda arrays, header: header["transform"].update(names=["gap"] * 5),
    "bounds that are infinite": swap("bounds", poke(np.inf)), "bounds of fewer features": swap("bounds", lambda b: b[:, 1:]),
    "bounds upside down": swap("bounds", lambda b: b[::-1].copy()), "history of words": write(history=History(["low"], [1.0], 1, 0.0).__dict__),
    "history without an end": write(history=History([1.0], [float("inf")], 1, 0.0).__dict__), "far too many points": claim(n_points=10**6),
    "whole numbers as scores": swap("calibration_scores", lambda s: np.arange(len(s))),
    "another kind of transform": lambda arrays, header: header["transform"].update(kind="quantile")}


@pytest.mark.parametrize("kind", FORGERIES)
def test_files_that_contradict_themselves_are_refused(kind, detector, tmp_path, monkeypatch):
    "And before a flow of the claimed size is built: a file must not decide how much memory is taken."
    build = module.build_flow
    def guarded(architecture, names, order, bounds, *sizes, **rest):
        assert max(sizes[:3], default=0) < 10**4, "built before it is checked"
        return build(architecture, names, order, bounds, *sizes, **rest)
    monkeypatch.setattr(module, "build_flow", guarded)
    refuses(forged(detector, tmp_path / "forged.safetensors", FORGERIES[kind], monkeypatch))


@pytest.mark.parametrize("architecture, d", [("pzflow", 300), ("pzflow", 1000), ("coupling", 1000), ("autoregressive", 1000), ("pzflow", 100)])
def test_names_alone_build_nothing(detector, tmp_path, monkeypatch, architecture, d):
    "Hundreds of names and no weights: 300 of the architecture `pzflow` took 1.5 GB, 1,000 had no end."
    def many(arrays, header):
        for i in range(8): del arrays[f"flow.{i}"]
        for name in ("center", "scale"):
            if f"transform.{name}" in arrays: arrays[f"transform.{name}"] = np.ones(d)
        arrays |= {"transform.kept": np.ones(d, bool), "transform.constant_value": np.zeros(d), "bounds": np.stack([-np.ones(d), np.ones(d)])}
        header["transform"]["names"] = [f"x{i}" for i in range(d)]
        header["parameters"]["architecture"] = architecture
    monkeypatch.setattr(module, "build_flow", lambda *_: pytest.fail("built before it is checked"))
    refuses(forged(detector, tmp_path / "names.safetensors", many, monkeypatch), "arrays|features")


def test_two_million_points_are_refused(profiled, tmp_path, monkeypatch):
    "Each block of records would have a table of 2 GB."
    def many(arrays, header): arrays["statistic.points"] = np.zeros((2_000_000, arrays["statistic.points"].shape[1]), np.float32)
    refuses(forged(profiled, tmp_path / "points.safetensors", many, monkeypatch), "100,000 points")
    with pytest.raises(ValueError, match="n_points"): quick(statistic="profile", n_points=10**6).fit(X)


def test_what_no_file_may_hold_is_not_fitted(untrained):
    with pytest.raises(ValueError, match="4,096"): quick().fit(np.random.default_rng(0).normal(size=(40, 4097)))
    with pytest.raises(ValueError, match="128"): FlowDetector.preset("paper").fit(np.random.default_rng(0).normal(size=(60, 129)))


def test_an_honest_file_passes_where_the_forged_fail(detector, tmp_path, monkeypatch):
    law_round_trip(detector, FlowDetector.load, forged(detector, tmp_path / "honest.safetensors", lambda arrays, header: None, monkeypatch), X)


def law_saving_is_atomic(save, path, monkeypatch):
    "When writing fails the old file stays, and nothing lies beside it."
    old = path.read_bytes()
    def broken(target, content):
        open(target, "wb").write(b"half")
        raise OSError("no space left on device")
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", broken)
        with pytest.raises(OSError, match="no space"): save(path)
    assert path.read_bytes() == old and list(path.parent.iterdir()) == [path]


def test_law_saving_is_atomic(detector, tmp_path, monkeypatch):
    law_saving_is_atomic(detector.save, detector.save(tmp_path / "model.safetensors"), monkeypatch)


def test_law_saving_is_atomic_catches_writing_in_place(detector, tmp_path, monkeypatch):
    path = detector.save(tmp_path / "model.safetensors")
    with pytest.raises(AssertionError): law_saving_is_atomic(lambda path: path.write_bytes(b"whole"), path, monkeypatch)


def test_a_saved_file_says_what_made_it(saved):
    with safe_open(saved, framework="numpy") as file: header, names = json.loads(file.metadata()["nfad"]), set(file.keys())
    assert (header["format"], header["score"]) == (module.FILE_FORMAT, module.SCORE_VERSION) and header["transform"]["names"] == list(X) and header["versions"]["pzflow"]
    assert {"calibration_scores", "transform.center", "flow.0"} <= names


# --- the default statistic ----------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def profiled(): return FlowDetector(hidden=16, epochs=6, batch_size=64).fit(X)


def test_the_default_statistic_keeps_the_laws(profiled, tmp_path):
    assert profiled.statistic == "profile"
    law_round_trip(profiled, FlowDetector.load, profiled.save(tmp_path / "m.safetensors"), strange(X))
    law_decisions_agree(profiled, pd.concat([X, X.iloc[:50] * 20], ignore_index=True))
    law_constants_are_kept(profiled, X, "version")
    law_strange_is_ordered(profiled, X, list(X))


NOTED = {2: {"validation loss": 5.1506, "score": 0.8189, 4: [1.9956, 1.8964, 1.8128, 1.7301],
             21: [2.9864, 3.0415, 2.5034, 3.0082], 45: [4.1383, 3.875, 3.4189, 4.4495]}}  # version -> figures of `profiled`; features -> mean parts


def law_the_version_names_the_score(what, found):
    "Whoever changes training or default score raises SCORE_VERSION of 02d_detector and notes the new figures here; else old results pass for new ones."
    assert module.SCORE_VERSION in NOTED, f"note the figures of version {module.SCORE_VERSION}"
    tolerance = 0.05 if what == "score" else 0.01  # ranks among 32 held-out records jump with the last bits of another processor
    assert np.allclose(found, NOTED[module.SCORE_VERSION][what], rtol=tolerance), (what, np.round(found, 4))


def test_the_number_of_points_reaches_the_statistic():
    assert FlowDetector(hidden=8, epochs=1, n_points=7).fit(X).statistic_.n_points == 7


def mean_parts(d):
    "Mean parts of the profile statistic over records of heavy tails, on the surprises of a Gaussian."
    Z = np.random.default_rng(d).standard_t(4, (5200, d))
    surprise = GaussianSurprise(Z[:4000])
    fitted = ProfileStatistic().fit(Z[:4000], surprise(Z[:4000]), Z[4000:4800], surprise(Z[4000:4800]))
    return fitted.parts(1.5 * Z[4800:], surprise(1.5 * Z[4800:])).mean(axis=0)


def test_law_the_version_names_the_score(profiled):
    law_the_version_names_the_score("validation loss", min(profiled.history_.validation_loss))
    law_the_version_names_the_score("score", profiled.anomaly_score(X).mean())
    for d in (4, 21, 45): law_the_version_names_the_score(d, mean_parts(d))


def test_law_the_version_names_the_score_catches_a_silent_change(profiled, detector, monkeypatch):
    with pytest.raises(AssertionError): law_the_version_names_the_score("score", detector.anomaly_score(X).mean())
    with pytest.raises(AssertionError): law_the_version_names_the_score("validation loss", profiled.history_.validation_loss[0])
    monkeypatch.setattr("nfad.statistics.usual_points", lambda n_features: 2000)
    with pytest.raises(AssertionError): law_the_version_names_the_score(21, mean_parts(21))
    monkeypatch.setattr(module, "SCORE_VERSION", 10**6)
    with pytest.raises(AssertionError, match="note the figures"): law_the_version_names_the_score("score", 0.0)


def law_company_does_not_matter(score, frame):
    "A record's score is the same to the last bit alone, in any number, and in any order."
    whole = score(frame)
    for n in (1, 5, 31, 63, 65, 100, 255, 257): assert np.array_equal(score(frame[:n]), whole[:n]), n
    assert np.array_equal(score(frame[::-1]), whole[::-1])


def test_law_company_does_not_matter(profiled): law_company_does_not_matter(profiled.anomaly_score, X)


def test_law_company_does_not_matter_catches_ranks(profiled):
    with pytest.raises(AssertionError): law_company_does_not_matter(lambda frame: np.argsort(profiled.anomaly_score(frame)), X)


def test_score_parts_add_up(profiled, detector):
    for d, names in ((profiled, ["record", "profile", "total", "local", "constants"]), (detector, ["log_prob", "constants"])):
        parts = d.score_parts(X.assign(version=[5.0] * 3 + [4.0] * (len(X) - 3)))
        assert list(parts) == names and (parts.constants[:3] > 0).all() and (parts.constants[3:] == 0).all()
        assert np.allclose(parts.sum(axis=1)[3:], d.anomaly_score(X)[3:])


def test_couplings_have_no_profile():
    with pytest.raises(ValueError, match="statistic must be 'log_prob' for architecture 'pzflow'"): FlowDetector(architecture="pzflow").fit(MILD)


# --- the strangest records -------------------------------------------------------------------------------------

@pytest.mark.parametrize("transform", UNBOUNDED)
def test_law_strange_is_ordered(fitted, transform): law_strange_is_ordered(fitted(transform), X, list(X))


def test_law_strange_is_ordered_catches_pzflow(paper):
    with pytest.raises(AssertionError): law_strange_is_ordered(paper, MILD, ["duration"])
    far = paper.anomaly_score(pd.DataFrame({"duration": [1e9, 1e10, 1e11], "bytes": 5.0}))
    assert (far == -np.finfo(np.float32).min).all()  # finite, but all the same


def test_law_strange_is_ordered_catches_a_clipped_score(detector):
    class Clipped(FlowDetector):
        def anomaly_score(self, X): return np.minimum(super().anomaly_score(X), 20.0)
    clipped = Clipped()
    vars(clipped).update(vars(detector))
    with pytest.raises(AssertionError): law_strange_is_ordered(clipped, X, ["gap"])


def law_strange_is_strange(detector, frame):
    "On these records (it is no promise: the strangest of real ones differ in many features) 1e12 in one feature scores above all."
    highest = detector.anomaly_score(frame).max()
    for feature in frame:
        for value in (1e12, -1e12):
            assert (detector.anomaly_score(frame[:20].assign(**{feature: value})) > highest).all(), (feature, value)


@pytest.mark.parametrize("transform", ["log", "standard", "quantile"])
def test_law_strange_is_strange(fitted, transform): law_strange_is_strange(fitted(transform), X)


def test_law_strange_is_strange_catches_values_clipped_to_the_training_range(fitted):
    with pytest.raises(AssertionError): law_strange_is_strange(quick(transform="robust", epochs=1).fit(X), X)


# --- many columns, constants, values that are no numbers -------------------------------------------------------

WIDE = 78


def wide_records(n=300, seed=1):
    "Seventy-eight columns of every size, correlated, a few constant."
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 6)) @ rng.normal(size=(6, WIDE)) + rng.normal(0, 0.3, (n, WIDE))
    values = np.exp(hidden * rng.uniform(0.1, 2, WIDE)) * 10 ** rng.uniform(-3, 8, WIDE)
    values[:, ::10] = 3.0
    return pd.DataFrame(values, columns=[f"f{i}" for i in range(WIDE)])


@pytest.fixture(scope="module")
def wide():
    frame = wide_records()
    return frame, FlowDetector(hidden=16, epochs=3, batch_size=64).fit(frame)


def test_all_columns_at_once(wide):
    frame, d = wide
    assert len(d.constant_) == 8 and np.isfinite(d.anomaly_score(frame)).all() and np.isfinite(d.history_.train_loss).all()
    for value in (0.0, 1e12, -1e12, 1e30):
        scores = d.anomaly_score(pd.DataFrame(np.full((3, WIDE), value), columns=frame.columns))
        assert np.isfinite(scores).all() and (value == 0 or (scores > d.anomaly_score(frame).max()).all())


def test_law_strange_is_ordered_in_many_columns(wide): law_strange_is_ordered(wide[1], wide[0], ["f0", "f1", "f40", "f77"])


def test_law_constants_are_kept(detector): law_constants_are_kept(detector, X, "version")


def test_law_constants_are_kept_catches_silence(detector):
    class Silent(FlowDetector):
        def anomaly_score(self, X): return -self.log_prob_terms(X).sum(axis=1)
    silent = Silent()
    vars(silent).update(vars(detector))
    with pytest.raises(AssertionError): law_constants_are_kept(silent, X, "version")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(detector, value):
    bad = X[:40].copy()
    bad.iloc[7, 1] = value
    for use in (quick().fit, detector.anomaly_score, detector.predict, detector.log_prob_terms, detector.calibrate,
                lambda frame: quick().fit(X, validation=frame)):
        with pytest.raises(ValueError, match="records must be finite.*bytes"): use(bad)
    assert len(detector.calibration_scores_) == 32  # the failed calibration changed nothing


def test_text_and_all_constant_columns_are_refused():
    with pytest.raises(TypeError, match="bytes"): quick().fit(X.assign(bytes="many"))
    with pytest.raises(ValueError, match="constant"): quick().fit(X * 0)


def law_discrete_data_has_bounded_density(fit):
    "On data with few values the log density stays near the peak of the noise's own density."
    values = np.random.default_rng(0).integers(0, 2, (320, 2)).astype(float)
    d = fit(pd.DataFrame(values, columns=["syn", "ack"]))
    peak = -np.log(0.02 * np.sqrt(2 * np.pi))
    highest = d.log_prob_terms(values).max()
    assert highest < peak + 0.5, highest


def fit_discrete(noise, frame): return FlowDetector(hidden=16, batch_size=64, epochs=150, patience=150, learning_rate=0.02, noise=noise, transform="standard").fit(frame)


def test_law_discrete_data_has_bounded_density(): law_discrete_data_has_bounded_density(partial(fit_discrete, 0.02))


def test_law_discrete_data_has_bounded_density_catches_no_noise():
    with pytest.raises(AssertionError): law_discrete_data_has_bounded_density(partial(fit_discrete, 0.0))


# --- company and compilations ----------------------------------------------------------------------------------

def test_scoring_compiles_nothing_after_fit(detector):
    frame = pd.concat([X] * (BLOCK // len(X) + 2), ignore_index=True)
    with compilations() as seen:
        for n in (1, 7, BLOCK, BLOCK + 1): detector.anomaly_score(frame[:n]), detector.to_latent(frame[:n]), detector.predict(frame[:n])
    assert not seen


def law_no_threads_that_wait_for_each_other(score, monkeypatch):
    "Every search of a score runs with one BLAS thread, few records or many; afterwards there are as many as before."
    seen = set()
    def threads(): return {library["num_threads"] for library in ThreadpoolController().select(user_api="blas").info()}
    search = NearestPoints.distance
    def spy(self, *args, **settings):
        seen.update(threads())
        return search(self, *args, **settings)
    monkeypatch.setattr(NearestPoints, "distance", spy)
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        for n in (1, len(X)): score(X[:n])
        score(pd.concat([X] * (BLOCK // len(X) + 2), ignore_index=True))
        assert seen == {1} and threads() == before


def test_law_no_threads_that_wait_for_each_other(profiled, monkeypatch): law_no_threads_that_wait_for_each_other(profiled.anomaly_score, monkeypatch)


def test_law_no_threads_that_wait_for_each_other_catches_an_unguarded_search(profiled, monkeypatch):
    monkeypatch.setattr("nfad.engine.one_blas_thread", nullcontext)
    with pytest.raises(AssertionError): law_no_threads_that_wait_for_each_other(profiled.anomaly_score, monkeypatch)


def law_independent_of_company(score):
    "A record's score does not depend, to the last bit, on the number and order of its neighbors."
    frame = pd.concat([X] * (2 * BLOCK // len(X) + 2), ignore_index=True)[:2 * BLOCK + 400]
    scores, order = score(frame), np.random.default_rng(0).permutation(len(frame))
    assert np.array_equal(score(frame.iloc[order]), scores[order])
    for cut in (1, 13, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK):
        assert np.array_equal(np.concatenate([score(frame[:cut]), score(frame[cut:])]), scores), cut


def test_law_independent_of_company(detector): law_independent_of_company(detector.anomaly_score)


def test_law_independent_of_company_catches_statistics_of_the_batch(detector):
    with pytest.raises(AssertionError): law_independent_of_company(lambda f: detector.anomaly_score(f) - detector.anomaly_score(f).mean())


def test_the_fast_preset_trains_saves_and_loads_by_the_number_of_features(tmp_path):
    fast = FlowDetector.preset("fast", epochs=1).fit(MILD)
    assert (fast.hidden, fast.optimizer, fast.flow_._bijector_info[1][2]) == (None, "adam_short", 32)
    again = FlowDetector.load(fast.save(tmp_path / "fast.safetensors"))
    assert np.array_equal(again.anomaly_score(MILD), fast.anomaly_score(MILD))
    with pytest.raises(ValueError, match="optimizer"): FlowDetector.preset("paper", optimizer="adam_short").fit(MILD)
    with pytest.raises(ValueError, match="hidden"): FlowDetector(hidden=0).fit(MILD)


def law_second_fit_compiles_nothing(fit):
    "Once a detector of the same sizes was fitted, another compiles nothing: other records, seed, order, rates, noise, latent, transform."
    fit({})
    for settings in ({}, {"seed": 7}, {"feature_order": ["gap", "flags", "version", "bytes", "duration"]}, {"feature_order": "shuffled", "seed": 3},
                     {"learning_rate": 1e-3, "noise": 0.1, "fpr": 0.2}, {"transform": "standard"}):
        with compilations() as seen: fit(settings)
        assert not seen, settings


def quick_scores(settings): return quick(**{"epochs": 2} | settings).fit(records(seed=settings.get("seed", 0))).anomaly_score(X[:50])


def test_law_second_fit_compiles_nothing(): law_second_fit_compiles_nothing(quick_scores)


def test_law_second_fit_compiles_nothing_catches_other_sizes():
    with pytest.raises(AssertionError): law_second_fit_compiles_nothing(lambda settings: quick_scores(settings | {"batch_size": 40 + 3 * len(settings)}))


def test_second_ensemble_compiles_nothing(trio):
    with compilations() as seen: quick(n_members=3, epochs=3, feature_order="shuffled", seed=11).fit(X).anomaly_score(X)
    assert not seen


def test_no_records_give_no_scores(detector):
    assert detector.anomaly_score(X[:0]).shape == (0,) and detector.log_prob_terms(X[:0]).shape == (0, 4) and detector.predict(X[:0]).shape == (0,)


# --- seeds -----------------------------------------------------------------------------------------------------

def law_seed_decides(fit):
    "Equal seeds give equal bits, different seeds different scores."
    first = fit(0)
    assert np.array_equal(first, fit(0)) and not np.array_equal(first, fit(1))


def test_law_seed_decides(): law_seed_decides(lambda seed: quick(seed=seed, epochs=1).fit(X).anomaly_score(X))


def test_law_seed_decides_catches_a_fixed_seed():
    with pytest.raises(AssertionError): law_seed_decides(lambda seed: np.zeros(3))


def test_law_seed_decides_catches_a_hidden_source():
    with pytest.raises(AssertionError): law_seed_decides(lambda seed: np.random.default_rng().random(3))


# --- an ensemble -----------------------------------------------------------------------------------------------

def alone(detector, i):
    "Member i as a detector of its own."
    single = FlowDetector(**detector.get_params() | {"n_members": 1, "seed": detector.seed + i})
    vars(single).update({name: value for name, value in vars(detector).items() if name.endswith("_") and name != "flows_"})
    single._set_flow(detector._bounds)
    single.flow_._params = detector.flows_[i]._params
    return single


def law_mean_of_members(terms, trio):
    "The terms of an ensemble are the mean over its members, which differ in weights and order."
    each = np.stack([alone(trio, i).log_prob_terms(X) for i in range(3)])
    assert np.allclose(terms(X), each.mean(axis=0), atol=1e-5) and np.abs(each[0] - each[1]).max() > 0.1
    assert len({flow._bijector_info[1][0] for flow in trio.flows_}) > 1
    assert np.allclose(trio.score_samples(X), each.mean(axis=0).sum(axis=1), atol=1e-4)


def test_law_mean_of_members(trio): law_mean_of_members(trio.log_prob_terms, trio)


def test_law_mean_of_members_catches_the_first_alone(trio):
    with pytest.raises(AssertionError): law_mean_of_members(alone(trio, 0).log_prob_terms, trio)


def test_law_round_trip_of_an_ensemble(trio, tmp_path):
    law_round_trip(trio, FlowDetector.load, trio.save(tmp_path / "model.safetensors"), strange(X))


def test_scikit_learn_is_not_imported(saved, tmp_path):
    "Neither by the module nor to load and score: that would double the time to the first score."
    X.to_csv(tmp_path / "X.csv", index=False)
    script = ("import sys, pandas as pd; import nfad.train as t; assert 'sklearn' not in sys.modules, 'by the import';"
              "d = t.FlowDetector.load(sys.argv[1]); d.predict(pd.read_csv(sys.argv[2])); repr(d); assert 'sklearn' not in sys.modules, 'by the scores'")
    run_child(script, saved, tmp_path / "X.csv")


# --- one more part of the score -----------------------------------------------------------------------------

def test_one_more_part_is_followed_by_all_but_onnx(monkeypatch, tmp_path):
    "Scores, their names, files and single records have it at once; ONNX refuses by its name until it has nodes for it."
    from nfad import export_flow, statistics, studies
    from nfad.streams import Scorer
    from test_statistics import CEILING, Ceiling
    monkeypatch.setattr(Ceiling, "width", 4)  # features of `X` that vary
    parts = (*statistics.PARTS, CEILING)
    for place in (statistics, module, studies, export_flow): monkeypatch.setattr(place, "PARTS", parts)
    d = FlowDetector(hidden=16, epochs=1, batch_size=64).fit(X)
    high = X[:40].assign(duration=1e9, bytes=1e9, gap=1e9, flags=1e9)
    assert list(d.score_parts(high)) == ["record", "profile", "total", "local", "ceiling", "constants"]
    assert (d.score_parts(high).ceiling > d.score_parts(X).ceiling.max()).all()
    again = FlowDetector.load(d.save(tmp_path / "model.safetensors"))
    assert np.array_equal(again.anomaly_score(high), d.anomaly_score(high))
    assert np.allclose([alert.anomaly_score for alert in Scorer(d).score(high)], d.anomaly_score(high))
    assert any("ceiling" in name for name in studies.statistic_scores(d, X)(high))
    with pytest.raises(ValueError, match="'ceiling'"): export_flow.flow_to_onnx(d)


# ---------------------------------------------------------------- scikit-learn's own checks

EXPECTED = {"check_estimators_nan_inf": "the error says where: 'records must be finite, got nan in column ..., record ...'; the check looks for 'NaN'"}


def failed_checks(estimator) -> dict[str, str]:
    """scikit-learn's checks that an estimator fails, but for `EXPECTED`, and what they say.

    `transform` is a parameter of FlowDetector, the name of a scale; the checks take whatever has that name for a method, so it is hidden from them.
    """
    from unittest import mock

    from sklearn.utils import estimator_checks
    def known(thing, name): return name != "transform" and hasattr(thing, name)
    with mock.patch.object(estimator_checks, "hasattr", known, create=True), pytest.warns():
        found = estimator_checks.check_estimator(estimator, expected_failed_checks=EXPECTED, on_fail=None, on_skip=None)
    counts = {status: sum(result["status"] == status for result in found) for status in ("passed", "xfail", "failed")}
    assert counts["passed"] + counts["failed"] > 40 and counts["xfail"] == len(EXPECTED)
    return {result["check_name"]: str(result["exception"]) for result in found if result["status"] == "failed"}


def test_scikit_learn_checks_pass():
    assert failed_checks(FlowDetector(epochs=1, hidden=8, n_layers=1, n_bins=4)) == {}


def test_scikit_learn_checks_catch_a_detector_that_forgets_its_columns():
    class Forgetful(FlowDetector):
        def fit(self, X, y=None):
            super().fit(X)
            self.n_features_in_ = 7
            return self
    assert "check_n_features_in" in failed_checks(Forgetful(epochs=1, hidden=8, n_layers=1, n_bins=4))
