"""Laws of training in nfad.training: wild records, noise, compilation, seeds, checkpoints, files, ensembles."""
import json
import os
import re
import struct
import subprocess
import sys
from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from pzflow import Flow
from pzflow.bijectors import ShiftBounds, UniformDequantizer
from safetensors import safe_open
from sklearn.exceptions import NotFittedError

from nfad import training as train
from nfad.engine import BLOCK, BLOCKS, in_blocks
from nfad.flow import AutoregressiveSpline, autoregressive_terms
from nfad.training import (ArraySource, History, ParquetRecords, ParquetSource, TrainingDiverged, build_flow, network_width, noisy_blocks,
                           one_cycle, plan_blocks, terms_function, train_flow)
from nfad.detector import FlowDetector, load_detector

from flows import BOUND, MILD, UNBOUNDED, X, law_constants_are_kept, law_round_trip, law_strange_is_ordered, masks_for, points, quick, records, strange, wild_params


# --- item 2: the strangest records --------------------------------------------------------------------------

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


# --- items 3 and 4: many columns, constants, values that are no numbers ---------------------------------------

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


def law_no_overflow(log_det):
    "Log determinants of many features stay finite, whatever the scales."
    for scale in (1e-6, 1e-2, 1.0, 1e2, 1e6):
        assert np.isfinite(log_det(80, scale)).all(), scale


def spline_log_det(d, scale):
    "Log determinants with random weights of the given size."
    params, bijector, _ = AutoregressiveSpline(range(d), hidden=8)[0](jax.random.PRNGKey(0), d)
    wild = wild_params(d, size=float(scale), hidden=8)
    return bijector(wild, points(16, d), conditions=None)[1]


def test_law_no_overflow(): law_no_overflow(spline_log_det)


def test_law_no_overflow_catches_shift_bounds():
    def shift_bounds(d, scale):
        _, bijector, _ = ShiftBounds(-scale * np.ones(d), scale * np.ones(d), 4.0)[0](None, d)
        return bijector((), jnp.zeros((1, d)))[1]
    with pytest.raises(AssertionError): law_no_overflow(shift_bounds)
    assert not np.isfinite(shift_bounds(80, 100.0)) and np.isfinite(shift_bounds(4, 100.0))


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


# --- item 5: training noise ---------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def seen_in_training():
    "Mean square of what the training step is given in each of four epochs; all records are zero."
    def seen(noise):
        def listen(state, masks, batches, *settings): return state, jnp.square(batches).mean()
        flow = build_flow("autoregressive", ["a", "b", "c"], [0, 1, 2], None, hidden=4, n_layers=1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train, "train_steps", listen)
            return np.array(train_flow(flow, np.zeros((256, 3)), np.zeros((4, 3)), epochs=4, batch_size=64, noise=noise).train_loss)
    return seen


def law_noise_is_fresh(seen, noise=0.5):
    "Every epoch sees the records with new noise of the size asked for."
    squares = seen(noise)
    assert len(set(squares.tolist())) == 4 and np.abs(np.sqrt(squares) / noise - 1).max() < 0.15


def test_law_noise_is_fresh(seen_in_training):
    law_noise_is_fresh(seen_in_training)
    assert not seen_in_training(0.0).any()


def test_law_noise_is_fresh_catches_a_dropped_result(seen_in_training):
    with pytest.raises(AssertionError): law_noise_is_fresh(lambda noise: seen_in_training(0.0))


def test_law_noise_is_fresh_catches_pzflow_dequantizer():
    "pzflow's dequantizer draws with one fixed key: every call gives the same shift, so it is no noise over epochs."
    _, dequantize, _ = UniformDequantizer([0, 1, 2])[0](None, 3)
    def seen(noise):
        drawn = [2 * noise * np.sqrt(3) * (np.asarray(dequantize((), jnp.zeros((256, 3)))[0]) - 0.5) for _ in range(4)]
        return np.array([np.square(z).mean() for z in drawn])
    with pytest.raises(AssertionError): law_noise_is_fresh(seen)


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


# --- item 6: one shape, one compilation ---------------------------------------------------------------------

COMPILE = "/jax/core/compile/backend_compile_duration"


@contextmanager
def compilations():
    "A list that grows with each function that XLA is asked to compile."
    seen = []
    def listen(event, seconds, **_):
        if event == COMPILE: seen.append(seconds)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try: yield seen
    finally: jax.monitoring.unregister_event_duration_listener(listen)


def law_one_compilation(score):
    "Scoring compiles once for each size of blocks."
    for sizes in ((1, 7, BLOCKS[0], 0), (BLOCKS[0] + 1, BLOCKS[1]), (BLOCKS[1] + 1, 1024, 5000)):
        with compilations() as seen:
            for n in sizes: score(np.zeros((n, 4), np.float32))
        assert len(seen) == 1, (sizes, len(seen))


def fresh_terms(detector):
    "The detector's evaluation of scaled records, not compiled yet."
    masks = masks_for(detector.flow_._params[1], range(4))
    return jax.jit(lambda params, Z: autoregressive_terms.__wrapped__(params[1], masks, Z, BOUND, 5.0))


def test_law_one_compilation(detector):
    terms, params = fresh_terms(detector), detector.flow_._params
    law_one_compilation(lambda Z: in_blocks(lambda rows: terms(params, rows), Z))


def test_law_one_compilation_catches_one_per_number_of_records(detector):
    terms, params = fresh_terms(detector), detector.flow_._params
    with pytest.raises(AssertionError): law_one_compilation(lambda Z: terms(params, Z) if len(Z) else None)


def test_scoring_compiles_nothing_after_fit(detector):
    frame = pd.concat([X] * (BLOCK // len(X) + 2), ignore_index=True)
    with compilations() as seen:
        for n in (1, 7, BLOCK, BLOCK + 1): detector.anomaly_score(frame[:n]), detector.to_latent(frame[:n]), detector.predict(frame[:n])
    assert not seen


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


def law_width(width):
    "The wanted width, or a multiple of 16, at least 32, with at least two units for each feature."
    for d in (1, 6, 16, 17, 58):
        assert width(7, d) == 7
        assert width(None, d) % 16 == 0 and max(32, 2 * d) <= width(None, d) < 2 * d + 32


def test_law_width(): law_width(network_width)


def test_law_width_catches_a_narrow_network():
    with pytest.raises(AssertionError): law_width(lambda hidden, d: hidden or 32)


def test_the_fast_preset_trains_saves_and_loads_by_the_number_of_features(tmp_path):
    fast = FlowDetector.preset("fast", epochs=1).fit(MILD)
    assert (fast.hidden, fast.optimizer, fast.flow_._bijector_info[1][2]) == (None, "adam_short", 32)
    again = FlowDetector.load(fast.save(tmp_path / "fast.safetensors"))
    assert np.array_equal(again.anomaly_score(MILD), fast.anomaly_score(MILD))
    with pytest.raises(ValueError, match="optimizer"): FlowDetector.preset("paper", optimizer="adam_short").fit(MILD)
    with pytest.raises(ValueError, match="hidden"): FlowDetector(hidden=0).fit(MILD)


def test_noise_by_resolution(monkeypatch):
    seen = []
    original = train.noisy_blocks
    monkeypatch.setattr(train, "noisy_blocks", lambda source, rng, size, scale: seen.append(scale) or original(source, rng, size, scale))
    grid = X.assign(steps=np.tile(np.arange(320.0), len(X) // 320))
    for noise in (0.02, "resolution"): quick(epochs=1, noise=noise, transform="standard").fit(grid)
    plain, fine = seen
    assert (plain == np.float32(0.02)).all() and (fine <= plain).all() and fine[-1] < 0.01
    with pytest.raises(ValueError, match="noise"): FlowDetector.preset("paper", noise="resolution").fit(MILD)


def test_weights_decay():
    size = lambda d: sum(float(np.square(leaf).sum()) for leaf in jax.tree.leaves(d.flow_._params))
    assert size(quick(optimizer="adamw").fit(X)) < size(quick().fit(X))


def law_any_number_of_records(evaluate, d=4):
    "The first record of each of many tables, and the last, have the same bits in every table they are in."
    most = 2 * BLOCK + 52
    Z = np.random.default_rng(0).normal(0, 3, (most, d)).astype(np.float32)
    whole = evaluate(Z)
    for n in [*range(1, 70), *range(97, most, 263), *(b + i for b in (BLOCK, 2 * BLOCK) for i in (-1, 0, 1)), most]:
        assert np.array_equal(evaluate(Z[:n]), whole[:n]), n
        assert np.array_equal(evaluate(Z[::-1][:n])[::-1], whole[most - n:]), n


def test_law_any_number_of_records(detector): law_any_number_of_records(lambda Z: in_blocks(detector.terms_, Z)[0])


@pytest.mark.parametrize("d, hidden", [(2, 24), (6, 32), (20, 48), (70, 40)])
def test_law_any_number_of_records_for_narrow_networks(d, hidden):
    flow = build_flow("autoregressive", [f"x{i}" for i in range(d)], range(d), None, hidden=hidden)
    terms = terms_function(flow)
    law_any_number_of_records(lambda Z: in_blocks(lambda rows: terms(flow._params, rows), Z)[0], d)


def test_law_any_number_of_records_catches_padding_that_leaks(detector):
    def wrong(Z):
        padded = np.concatenate([Z, np.zeros((-len(Z) % BLOCK, 4), np.float32)])
        return in_blocks(detector.terms_, padded - padded.mean(axis=0))[0][:len(Z)]
    with pytest.raises(AssertionError): law_any_number_of_records(wrong)


def law_blocks_are_put_together(in_blocks):
    "Each record goes through the function once, in its place, in blocks of one size."
    for n, block in ((0, None), (1, None), (64, None), (65, None), (257, None), (5000, None), (7, 3), (9, 3)):
        Z, sizes = np.arange(2 * n, dtype=np.float32).reshape(n, 2), []
        def function(rows):
            sizes.append(len(rows))
            return rows * 2, rows.sum(axis=1)
        double, total = in_blocks(function, Z, block)
        assert np.array_equal(double, 2 * Z) and np.array_equal(total, Z.sum(axis=1))
        assert set(sizes) == {block or min(size for size in (64, 256, 2048) if n <= size or size == 2048)} and len(sizes) == max(-(-n // sizes[0]), 1)


def test_law_blocks_are_put_together(): law_blocks_are_put_together(in_blocks)


def test_law_blocks_are_put_together_catches_a_lost_remainder():
    with pytest.raises(AssertionError): law_blocks_are_put_together(lambda f, Z, block: in_blocks(f, Z[:len(Z) // 3 * 3], block))


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


# --- item 8: seeds ------------------------------------------------------------------------------------------

def law_seed_decides(fit):
    "Equal seeds give equal bits, different seeds different scores."
    first = fit(0)
    assert np.array_equal(first, fit(0)) and not np.array_equal(first, fit(1))


def test_law_seed_decides(): law_seed_decides(lambda seed: quick(seed=seed, epochs=1).fit(X).anomaly_score(X))


def test_law_seed_decides_catches_a_fixed_seed():
    with pytest.raises(AssertionError): law_seed_decides(lambda seed: np.zeros(3))


def test_law_seed_decides_catches_a_hidden_source():
    with pytest.raises(AssertionError): law_seed_decides(lambda seed: np.random.default_rng().random(3))


# --- divergence ---------------------------------------------------------------------------------------------

def diverging(monkeypatch):
    "Makes the training noise, and so the loss, NaN."
    monkeypatch.setattr(train, "noise_scale", lambda Z, *_, **__: np.full(Z.shape[1], np.nan, np.float32))
    return quick(epochs=1)


def test_divergence_is_an_error_and_leaves_no_model(monkeypatch, tmp_path):
    d = diverging(monkeypatch)
    with pytest.raises(TrainingDiverged, match="learning_rate"): d.fit(X)
    with pytest.raises(NotFittedError): d.anomaly_score(X)
    with pytest.raises(NotFittedError): d.save(tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_divergence_of_a_second_fit_does_not_pass_for_the_first(detector, monkeypatch):
    d = quick(epochs=1)
    vars(d).update(vars(detector))
    diverging(monkeypatch)
    with pytest.raises(TrainingDiverged): d.set_params(seed=5).fit(X)
    with pytest.raises(NotFittedError): d.predict(X)


@pytest.mark.parametrize("losses", [[[3.0, np.nan], [3.0, np.nan]], [[3.0, 2.0], [3.0, np.nan]], [[3.0, np.inf], [3.0, 2.0]]])
def test_pzflow_divergence_is_an_error(monkeypatch, losses):
    monkeypatch.setattr(Flow, "train", lambda *args, **settings: losses)
    d = FlowDetector.preset("paper", epochs=2)
    with pytest.raises(TrainingDiverged, match="pzflow"): d.fit(MILD)
    with pytest.raises(NotFittedError): d.anomaly_score(MILD)


def law_best_epoch_is_kept(train_flow):
    "The weights kept are those of the lowest validation loss, and never of a NaN."
    flow = build_flow("autoregressive", ["a", "b"], [0, 1], None, hidden=16, seed=0)
    Z = np.asarray(points(320, 2, scale=1.0))
    history = train_flow(flow, Z[:288], Z[288:], epochs=8, batch_size=64, learning_rate=0.5, noise=0.0)  # too fast on purpose
    kept = float(-terms_function(flow)(flow._params, jnp.asarray(Z[288:]))[0].sum(axis=1).mean())
    assert history.best_epoch == int(np.argmin(history.validation_loss)) + 1 and np.isfinite(history.validation_loss).all()
    assert kept == pytest.approx(min(history.validation_loss), abs=1e-4)
    assert history.best_epoch < 8 or len(history.validation_loss) == 8


def test_law_best_epoch_is_kept(): law_best_epoch_is_kept(train_flow)


def test_law_best_epoch_is_kept_catches_the_last_weights():
    def last(flow, *args, **settings):
        history = train_flow(flow, *args, **settings)
        flow._params = jax.tree.map(lambda w: w * 1.05, flow._params)
        return history
    with pytest.raises(AssertionError): law_best_epoch_is_kept(last)


def test_patience_ends_training():
    history = quick(epochs=40, patience=1, learning_rate=0.5).fit(X).history_
    assert len(history.train_loss) < 40 and len(history.train_loss) - history.best_epoch <= 2


# --- batches, schedule --------------------------------------------------------------------------------------

def numbered(n): return ArraySource(np.arange(n, dtype=np.float32)[:, None])


def law_every_record_once(blocks, batch_size=8):
    "An epoch shows no record twice, all but less than a batch per block, in blocks of one shape, in a new order each time."
    for n in (8, 9, 100, 1000):
        epochs = [list(blocks(numbered(n), np.random.default_rng(i), batch_size, np.zeros(1, np.float32))) for i in (0, 1)]
        for parts in epochs:
            n_blocks, n_steps = plan_blocks(n, batch_size)
            assert [part.shape for part in parts] == [(n_steps, batch_size, 1)] * n_blocks and n_steps <= train.MAX_STEPS
            seen = np.concatenate([part.ravel() for part in parts])
            assert len(np.unique(seen)) == len(seen) and n - len(seen) < batch_size * max(n_blocks, 1)
        assert n < 10 or not np.array_equal(epochs[0][0], epochs[1][0])


def test_law_every_record_once(monkeypatch):
    law_every_record_once(noisy_blocks)
    monkeypatch.setattr(train, "MAX_STEPS", 5)
    law_every_record_once(noisy_blocks)


def test_law_every_record_once_catches_draws_with_replacement():
    def wrong(source, rng, batch_size, scale):
        return noisy_blocks(ArraySource(source.sample[rng.integers(0, source.n_records, source.n_records)]), rng, batch_size, scale)
    with pytest.raises(AssertionError): law_every_record_once(wrong)


def law_one_cycle(rates):
    "Up from a tenth of the peak for a fifth of the steps, then down to a thousandth; smooth."
    for n in (50, 1000, 4321):
        r = rates(n, 0.01)
        assert r.shape == (n,) and r.dtype == np.float32 and r.max() == pytest.approx(0.01, rel=1e-2) and r[0] == pytest.approx(0.001)
        assert abs(int(r.argmax()) - n / 5) <= 1 and r[-1] < 2e-4 and (np.diff(r[:n // 5]) > 0).all() and (np.diff(r[n // 5 + 1:]) < 0).all()


def test_law_one_cycle(): law_one_cycle(one_cycle)


def test_law_one_cycle_catches_a_constant_rate():
    with pytest.raises(AssertionError): law_one_cycle(lambda n, peak: np.full(n, peak, np.float32))


def test_blocks_of_any_size_train_alike(monkeypatch):
    "An epoch cut into several compiled calls gives the same weights as one call."
    def weights():
        flow = build_flow("autoregressive", ["a", "b"], [0, 1], None, hidden=16, seed=0)
        train_flow(flow, np.asarray(points(320, 2, scale=1.0)), np.zeros((8, 2)), epochs=2, batch_size=32, noise=0.0)
        return flow._params[1]
    whole = weights()
    monkeypatch.setattr(train, "MAX_STEPS", 5)
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(weights())))


# --- checkpoints --------------------------------------------------------------------------------------------

class Killed(BaseException):
    "Stands in for the end of the process."


@contextmanager
def killed_after(epochs):
    "Ends the training right after its checkpoint of an epoch."
    write = train.write_checkpoint
    def write_and_die(path, progress, identity):
        write(path, progress, identity)
        if len(progress.losses) == epochs: raise Killed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "write_checkpoint", write_and_die)
        with pytest.raises(Killed): yield


def same_model(a, b):
    "Weights, losses, threshold and scores agree to the last bit."
    weights = [jax.tree.leaves([flow._params for flow in d.flows_]) for d in (a, b)]
    return (all(np.array_equal(u, v) for u, v in zip(*weights, strict=True)) and a.offset_ == b.offset_ and a.history_.train_loss == b.history_.train_loss
            and a.history_.validation_loss == b.history_.validation_loss and a.history_.best_epoch == b.history_.best_epoch)


def law_killed_goes_on(make, records, path, epochs=(1, 3)):
    "A training killed after any epoch ends as one that never was, and leaves no checkpoint."
    whole = make().fit(records)
    for epoch in epochs:
        with killed_after(epoch): make().fit(records, checkpoint=path)
        assert path.is_file()
        assert same_model(make().fit(records, checkpoint=path), whole), epoch
        assert not list(path.parent.iterdir())


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "checkpoint.safetensors"


def test_law_killed_goes_on(checkpoint): law_killed_goes_on(partial(quick, epochs=4), X, checkpoint)


def test_law_killed_goes_on_for_an_ensemble(checkpoint):
    law_killed_goes_on(partial(quick, n_members=3, epochs=3, feature_order="shuffled"), X, checkpoint, epochs=(2,))


def test_law_killed_goes_on_with_parquet(checkpoint, parquet):
    law_killed_goes_on(partial(quick, epochs=3), ParquetRecords(parquet, chunk_rows=100), checkpoint, epochs=(2,))


def test_law_killed_goes_on_catches_a_forgotten_optimizer(checkpoint, monkeypatch):
    read = train.read_checkpoint
    def forgetful(path, start, identity):
        fresh = jax.tree.map(jnp.copy, start.state.optimizer)
        found = read(path, start, identity)
        return train.Progress(found.state._replace(optimizer=fresh), found.best_params, found.losses)
    monkeypatch.setattr(train, "read_checkpoint", forgetful)
    with pytest.raises(AssertionError): law_killed_goes_on(partial(quick, epochs=4), X, checkpoint)


def test_a_finished_training_with_its_checkpoint_left_behind_trains_no_more(checkpoint, monkeypatch):
    with killed_after(3): quick(epochs=3).fit(X, checkpoint=checkpoint)
    monkeypatch.setattr(train._Loop, "epoch", lambda *args: pytest.fail("trained again"))
    assert len(quick(epochs=3).fit(X, checkpoint=checkpoint).history_.train_loss) == 3 and not checkpoint.exists()


def law_foreign_is_refused(fit, path):
    "A checkpoint of other settings or other records is not used, and that is said."
    for settings, frame in (({"seed": 1}, X), ({"learning_rate": 1e-3}, X), ({"epochs": 5}, X), ({"batch_size": 32}, X), ({"noise": 0.1}, X), ({}, X ** 1.1),
                            ({"optimizer": "sgd"}, X), ({"latent_df": 3.0}, X), ({"hidden": 8}, X), ({"feature_order": list(X)[::-1]}, X), ({"patience": 3}, X)):
        path.unlink(missing_ok=True)
        with killed_after(1): quick(**{"epochs": 2}).fit(X, checkpoint=path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train._Loop, "epoch", lambda loop, at, rates: (_ for _ in ()).throw(Killed(len(at.losses))))  # how many epochs it starts from
            with pytest.warns(UserWarning, match="another training"), pytest.raises(Killed) as caught: fit(settings, frame, path)
        assert caught.value.args == (0,), settings


def fit_from(settings, frame, path): quick(**{"epochs": 2} | settings).fit(frame, checkpoint=path)


def test_law_foreign_is_refused(checkpoint): law_foreign_is_refused(fit_from, checkpoint)


def test_law_foreign_is_refused_catches_a_checkpoint_of_no_one(checkpoint, monkeypatch):
    write = train.read_checkpoint
    def anyone(path, start, identity):
        if not path.is_file(): return start
        with safe_open(path, framework="numpy") as file: return write(path, start, file.metadata()["identity"])
    monkeypatch.setattr(train, "read_checkpoint", anyone)
    with pytest.raises((AssertionError, pytest.fail.Exception)): law_foreign_is_refused(fit_from, checkpoint)


DAMAGE = {"truncated": lambda content: content[:len(content) // 2], "empty": lambda content: b"", "text": lambda content: b"epoch,loss\n" * 99,
          "header only": lambda content: content[:8 + struct.unpack("<Q", content[:8])[0]]}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_an_error_that_names_it(kind, checkpoint):
    with killed_after(1): quick(epochs=2).fit(X, checkpoint=checkpoint)
    checkpoint.write_bytes(DAMAGE[kind](checkpoint.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(str(checkpoint))): quick(epochs=2).fit(X, checkpoint=checkpoint)


def test_a_model_file_is_no_checkpoint_and_stays(saved, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(saved.read_bytes())
    with pytest.raises(ValueError, match="checkpoint"): quick(epochs=1).fit(X, checkpoint=path)
    assert path.read_bytes() == saved.read_bytes()


def test_divergence_leaves_no_weights_behind(monkeypatch, checkpoint):
    "Neither a checkpoint of NaN, nor changed weights of the flow."
    flow = build_flow("autoregressive", ["a", "b"], [0, 1], None, hidden=16, seed=0)
    before = [np.array(leaf) for leaf in jax.tree.leaves(flow._params)]
    Z = np.asarray(points(320, 2, scale=1.0))
    steps, calls = train.train_steps, []
    def breaking(state, *rest):
        calls.append(1)
        state, loss = steps(state, *rest)
        return (state, loss) if len(calls) < 3 else (jax.tree.map(lambda w: w * np.nan if w.dtype == np.float32 else w, state), loss)  # seen by validation only
    monkeypatch.setattr(train, "train_steps", breaking)
    with pytest.raises(TrainingDiverged, match="epoch 3"): train_flow(flow, Z, Z[:9], epochs=5, batch_size=64, checkpoint=checkpoint)
    assert all(np.array_equal(a, b) for a, b in zip(before, jax.tree.leaves(flow._params)))
    with safe_open(checkpoint, framework="numpy") as file:
        assert all(np.isfinite(file.get_tensor(name)).all() for name in file.keys()) and len(json.loads(file.metadata()["losses"])) == 2


# --- Parquet ------------------------------------------------------------------------------------------------

def write_parquet(folder, frame, rows=(60, 45, 110, 85, 20), group=25):
    "Several files of unequal length, in row groups."
    folder.mkdir(parents=True, exist_ok=True)
    edges = np.cumsum([0, *rows])
    for i, (a, b) in enumerate(zip(edges[:-1], edges[1:])): frame.iloc[a:b].to_parquet(folder / f"{i}.parquet", row_group_size=group, index=False)
    return folder


@pytest.fixture(scope="module")
def parquet(tmp_path_factory): return write_parquet(tmp_path_factory.mktemp("parquet") / "benign", X)


@pytest.fixture(scope="module")
def tickets(tmp_path_factory):
    "Records that are their own number."
    return write_parquet(tmp_path_factory.mktemp("parquet") / "tickets", pd.DataFrame({"ticket": np.arange(320.0), "other": np.arange(320.0)[::-1]}))


def law_parquet_epochs(chunks):
    "Every record once per epoch, none of the validation records, no chunk beyond `chunk_rows` and one row group, in a new order."
    for chunk_rows, n_groups, fraction in ((1, 16, 0.1), (60, 4, 0.3), (100, 16, 0.5), (10**6, 3, 0.1)):
        epochs, validation = chunks(chunk_rows, n_groups, fraction)
        for parts in epochs:
            seen = np.concatenate(parts)[:, 0]
            assert len(validation) and not set(seen) & set(validation)
            assert np.array_equal(np.sort([*seen, *validation]), np.arange(320))
            assert all(len(part) < chunk_rows + 25 for part in parts) and all(len(part) >= chunk_rows for part in parts[:-1])
        assert not np.array_equal(np.concatenate(epochs[0]), np.concatenate(epochs[1]))


def ticket_chunks(folder, chunk_rows, n_groups, fraction, held_out=ParquetRecords.held_out):
    source = ParquetSource(ParquetRecords(folder, chunk_rows=chunk_rows), fraction, 0, n_groups)
    source.scale(train.Transform("none").fit(source.train))
    assert source.n_records == 320 - len(source.validation) and len(source.sample) == len(source.train)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ParquetRecords, "held_out", held_out)
        return [list(source.chunks(np.random.default_rng(i))) for i in (0, 1)], source.validation.ticket.to_numpy()


def test_law_parquet_epochs(tickets): law_parquet_epochs(partial(ticket_chunks, tickets))


def test_law_parquet_epochs_catches_validation_records_in_training(tickets):
    def none(records, group, fraction, seed): return np.zeros(records.groups[group][2], bool)
    with pytest.raises(AssertionError): law_parquet_epochs(partial(ticket_chunks, tickets, held_out=none))


def test_law_parquet_epochs_catches_another_draw(tickets):
    draw = ParquetRecords.held_out
    with pytest.raises(AssertionError): law_parquet_epochs(partial(ticket_chunks, tickets, held_out=lambda self, group, fraction, seed: draw(self, group, fraction, seed + 1)))


def test_law_parquet_epochs_catches_a_lost_chunk(tickets):
    def wrong(*args):
        epochs, validation = ticket_chunks(tickets, *args)
        return [parts[:-1] or parts for parts in epochs], validation
    with pytest.raises(AssertionError): law_parquet_epochs(wrong)


def test_training_reads_parquet_like_a_frame(parquet):
    d = quick().fit(ParquetRecords(parquet, chunk_rows=100))
    assert d.n_train_ + len(d.calibration_scores_) == 320 and list(d.feature_names_in_) == list(X) and d.constant_ == ["version"]
    scores = d.anomaly_score(X)
    assert abs(np.median(scores) - np.median(quick().fit(X).anomaly_score(X))) < 0.7
    assert np.array_equal(quick().fit(ParquetRecords(sorted(parquet.iterdir()), chunk_rows=100)).anomaly_score(X), scores)
    narrow = quick(epochs=1).fit(ParquetRecords(str(parquet), columns=["gap", "bytes"]), validation=X[:40])
    assert list(narrow.feature_names_in_) == ["gap", "bytes"] and len(narrow.calibration_scores_) == 40


def test_memory_holds_one_chunk_of_parquet(parquet, monkeypatch):
    "No more rows are ever put together than a chunk, a row group, and what a block waits for."
    largest, concatenate = [0], np.concatenate
    def watch(parts, *args, **settings):
        result = concatenate(parts, *args, **settings)
        if result.ndim == 2 and result.shape[1] == 4: largest.append(len(result))
        return result
    source = ParquetSource(ParquetRecords(parquet, chunk_rows=50), 0.1, 0, n_groups=4)
    source.scale(train.Transform("log").fit(source.train))
    monkeypatch.setattr(train, "MAX_STEPS", 2)
    with monkeypatch.context() as patch:
        patch.setattr(np, "concatenate", watch)
        n = sum(block.shape[0] * block.shape[1] for block in noisy_blocks(source, np.random.default_rng(0), 16, np.zeros(4, np.float32)))
    assert n >= 160 and max(largest) <= 50 + 25 + 2 * 16, max(largest)


def test_parquet_errors_say_what_is_wrong(parquet, tmp_path):
    with pytest.raises(FileNotFoundError, match="Parquet"): ParquetRecords(tmp_path)
    with pytest.raises(FileNotFoundError, match="none.parquet"): ParquetRecords(tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="chunk_rows"): ParquetRecords(parquet, chunk_rows=0)
    with pytest.raises((KeyError, ValueError), match="durations"): quick(epochs=1).fit(ParquetRecords(parquet, columns=["durations", "bytes", "gap"]))


def test_a_file_that_is_no_parquet_is_named(parquet, tmp_path):
    (tmp_path / "bad.parquet").write_text("duration,bytes\n")
    with pytest.raises(ValueError, match="bad.parquet"): ParquetRecords(tmp_path)


def test_parquet_without_rows_is_refused(tmp_path):
    X[:0].to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="at least 20 benign records"): quick(epochs=1).fit(ParquetRecords(tmp_path))


def test_a_missing_number_in_parquet_names_its_file(tmp_path):
    bad = X.copy()
    bad.iloc[310, 1] = np.nan
    with pytest.raises(ValueError, match="bytes.*4.parquet|4.parquet.*bytes"): quick(epochs=1).fit(ParquetRecords(write_parquet(tmp_path / "bad", bad)))


def test_files_of_different_columns_are_refused(parquet, tmp_path):
    X[["duration", "gap"]].to_parquet(tmp_path / "other.parquet")
    with pytest.raises((KeyError, ValueError), match="bytes"): quick(epochs=1).fit(ParquetRecords([parquet, tmp_path / "other.parquet"]))


@pytest.mark.parametrize("settings", [{"architecture": "coupling"}, {"architecture": "pzflow"}])
def test_couplings_refuse_what_they_would_ignore(settings, parquet, checkpoint):
    "pzflow's own loop needs all records in memory, and keeps no checkpoint."
    with pytest.raises(ValueError, match="architecture"): quick(epochs=1, **settings).fit(ParquetRecords(parquet))
    with pytest.raises(ValueError, match="checkpoint"): quick(epochs=1, **settings).fit(MILD, checkpoint=checkpoint)


# --- ensembles ----------------------------------------------------------------------------------------------

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
    law_round_trip(trio, load_detector, trio.save(tmp_path / "model.safetensors"), strange(X))


def law_members_train_alike(together, Z, orders=((0, 1, 2), (2, 0, 1), (1, 2, 0)), epochs=3):
    "Each member of an ensemble learns what it would learn alone from the same batches."
    def flows(): return [build_flow("autoregressive", list("abc"), order, None, hidden=16, seed=i) for i, order in enumerate(orders)]
    settings = dict(epochs=epochs, batch_size=64, patience=99, seed=4, learning_rate=1e-3)
    members, singles = flows(), flows()
    history = together(members, Z[:288], Z[288:], **settings)
    apart = [train_flow(flow, Z[:288], Z[288:], **settings) for flow in singles]
    assert all(h.best_epoch == epochs for h in (history, *apart))  # so that all keep their last weights
    assert np.allclose(history.train_loss, np.mean([h.train_loss for h in apart], axis=0), atol=1e-3)
    assert np.allclose(history.validation_loss, np.mean([h.validation_loss for h in apart], axis=0), atol=1e-3)
    for a, b in zip(members, singles): assert np.allclose(terms_function(a)(a._params, Z)[0], terms_function(b)(b._params, Z)[0], atol=2e-2)


RING = np.asarray(points(320, 3, seed=6, scale=1.0)) * np.float32([1, 0.2, 2])


def test_law_members_train_alike(): law_members_train_alike(train_flow, RING)


def test_law_members_train_alike_catches_batches_of_their_own():
    def wrong(flows, *args, **settings):
        histories = [train_flow(flow, *args, **settings | {"seed": i}) for i, flow in enumerate(flows)]
        return History(*np.mean([[h.train_loss, h.validation_loss] for h in histories], axis=0).tolist(), 3, 0.0)
    with pytest.raises(AssertionError): law_members_train_alike(wrong, RING)


# --- several devices, and what is imported ------------------------------------------------------------------

CHILD = """
import sys, numpy as np, pandas as pd, jax
from nfad.train import FlowDetector
X = pd.read_csv(sys.argv[1])
results = {"devices": jax.device_count()}
for name, settings in {"single": {}, "odd batch": {"batch_size": 66}, "lonely batch": {"batch_size": 63}, "ensemble": {"n_members": 2, "epochs": 1}}.items():
    d = FlowDetector(**{"statistic": "log_prob", "hidden": 16, "epochs": 2, "batch_size": 64} | settings).fit(X)
    for part, values in {"loss": d.history_.train_loss, "validation": d.history_.validation_loss, "scores": d.anomaly_score(X), "few": d.anomaly_score(X[:5])}.items():
        results[f"{name}: {part}"] = values
np.savez(sys.argv[2], **results)
"""


def run_child(script, *args, **environment):
    "Runs a script in a fresh process."
    done = subprocess.run([sys.executable, "-c", script, *map(str, args)], env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def by_devices(tmp_path_factory):
    "The same trainings on one device, and on four simulated ones."
    folder = tmp_path_factory.mktemp("devices")
    X.to_csv(folder / "X.csv", index=False)
    for n in (1, 4): run_child(CHILD, folder / "X.csv", folder / f"{n}.npz", XLA_FLAGS=f"--xla_force_host_platform_device_count={n}")
    return [dict(np.load(folder / f"{n}.npz")) for n in (1, 4)]


def law_devices_agree(one, four):
    "Losses and scores of data-parallel training are those of one device, up to rounding."
    assert (one["devices"], four["devices"]) == (1, 4)
    for key in set(one) - {"devices"}: assert np.allclose(one[key], four[key], rtol=5e-3, atol=5e-2), (key, np.abs(one[key] - four[key]).max())


def test_law_devices_agree(by_devices): law_devices_agree(*by_devices)


def test_law_devices_agree_catches_a_gradient_of_one_device(by_devices):
    one, four = by_devices
    with pytest.raises(AssertionError): law_devices_agree(one, four | {"single: scores": one["odd batch: scores"]})


def test_scikit_learn_is_not_imported(saved, tmp_path):
    "Neither by the module nor to load and score: that would double the time to the first score."
    X.to_csv(tmp_path / "X.csv", index=False)
    script = ("import sys, pandas as pd; import nfad.train as t; assert 'sklearn' not in sys.modules, 'by the import';"
              "d = t.load_detector(sys.argv[1]); d.predict(pd.read_csv(sys.argv[2])); repr(d); assert 'sklearn' not in sys.modules, 'by the scores'")
    run_child(script, saved, tmp_path / "X.csv")


# --- figures ------------------------------------------------------------------------------------------------

def test_figures(pair):
    import warnings
    from nfad import training
    from matplotlib import pyplot as plt
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for history in (pair.history_, History([1.0], [2.0], 1, 0.1)): assert training.plot_loss(history).get_xlabel() == "epoch"
        Z = pair.transform_.transform(X)
        log_prob = lambda points: in_blocks(pair.terms_, points)[0].sum(axis=1)
        for is_attack in (None, np.arange(len(Z)) % 3 == 0, np.zeros(len(Z), bool)):
            assert training.plot_density(log_prob, Z, is_attack, labels=["a", "b"]).get_xlabel() == "a"
        for axes in plt.get_fignums(): plt.figure(axes).canvas.draw()
    plt.close("all")
