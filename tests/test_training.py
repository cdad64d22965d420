"""Laws of training in nfad.training: wild records, noise, compilation, seeds, checkpoints, files, ensembles."""
import re
import struct
from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from pzflow import Flow
from pzflow.bijectors import UniformDequantizer
from sklearn.exceptions import NotFittedError

from nfad import training as train
from nfad.architectures import build_flow, terms_function
from nfad.core import read_header, read_model
from nfad.engine import in_blocks
from nfad.flow import autoregressive_masks, autoregressive_terms
from nfad.training import (ArraySource, History, ParquetRecords, ParquetSource, TrainingDiverged, noisy_blocks,
                           one_cycle, plan_blocks, train_flow)
from nfad.detector import FlowDetector

from flows import MILD, X, points, quick, run_child


# --- training noise ---------------------------------------------------------------------------------

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


# --- one shape, one compilation ---------------------------------------------------------------------

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
        assert abs(int(r.argmax()) - n / 5) <= 1 and r[-1] < 2e-4
        assert (np.diff(r[:n // 5]) > 0).all() and (np.diff(r[n // 5 + 1:]) < 0).all()


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


# --- one scan against a plain loop -----------------------------------------------------------------------------

def plain_steps(params, masks, batches, rates, clip=5.0):
    "A loop in Python over optax as its manual shows it."
    rule = optax.chain(optax.clip_by_global_norm(clip), optax.adam(1.0))
    state = rule.init(params)
    def loss(params, Z): return -autoregressive_terms(params, masks, Z, 5.0, 5.0)[0].sum(axis=1).mean()
    both, losses = jax.jit(jax.value_and_grad(loss)), []
    for Z, rate in zip(batches, rates, strict=True):
        value, gradient = both(params, Z)
        update, state = rule.update(gradient, state, params)
        params = jax.tree.map(lambda w, u: w + rate * u, params, update)
        losses.append(float(value))
    return params, np.mean(losses)


def law_scan_is_a_plain_loop(steps, d=3, n_steps=30):
    "Weights and mean loss after many steps are those of the plain loop, up to rounding, also where gradients are clipped."
    flow = build_flow("autoregressive", list("abc"), range(d), None, hidden=16, seed=2)
    masks = autoregressive_masks(range(d), 16)
    batches = np.asarray(points(n_steps * 32, d, seed=3, scale=8.0)).reshape(n_steps, 32, d)
    for peak in (1e-3, 1e-2):
        rates = one_cycle(n_steps, peak)
        params, loss = steps(flow._params[1], masks, batches, rates)
        wanted, wanted_loss = plain_steps(flow._params[1], masks, batches, rates)
        assert all(np.allclose(params[name], wanted[name], atol=1e-3 * peak / 1e-3) for name in wanted), peak
        assert loss == pytest.approx(wanted_loss, rel=1e-3)


def scanned(params, masks, batches, rates):
    state, loss = train.train_steps(train.start_training(params, "adam"), masks, batches, rates, "adam", 5.0, 5.0)
    return state.params, float(loss)


def test_law_scan_is_a_plain_loop(): law_scan_is_a_plain_loop(scanned)


@pytest.mark.parametrize("broken", [lambda p, m, b, r: scanned(p, m, b, np.roll(r, 5)), lambda p, m, b, r: scanned(p, m, b[::-1], r)])
def test_law_scan_is_a_plain_loop_catches(broken):
    with pytest.raises(AssertionError): law_scan_is_a_plain_loop(broken)


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
    def reported(d): return d.offset_, d.history_.train_loss, d.history_.validation_loss, d.history_.best_epoch
    return all(np.array_equal(u, v) for u, v in zip(*weights, strict=True)) and reported(a) == reported(b)


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
    others = ({"seed": 1}, {"learning_rate": 1e-3}, {"epochs": 5}, {"batch_size": 32}, {"noise": 0.1}, {"optimizer": "sgd"},
              {"latent_df": 3.0}, {"hidden": 8}, {"feature_order": list(X)[::-1]}, {"patience": 3})
    def says_where(loop, at, rates): raise Killed(len(at.losses))  # how many epochs it starts from
    for settings, frame in [({}, X ** 1.1), *((settings, X) for settings in others)]:
        path.unlink(missing_ok=True)
        with killed_after(1): quick(**{"epochs": 2}).fit(X, checkpoint=path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train._Loop, "epoch", says_where)
            with pytest.warns(UserWarning, match="another training"), pytest.raises(Killed) as caught: fit(settings, frame, path)
        assert caught.value.args == (0,), settings


def fit_from(settings, frame, path): quick(**{"epochs": 2} | settings).fit(frame, checkpoint=path)


def test_law_foreign_is_refused(checkpoint): law_foreign_is_refused(fit_from, checkpoint)


def test_law_foreign_is_refused_catches_a_checkpoint_of_no_one(checkpoint, monkeypatch):
    write = train.read_checkpoint
    def anyone(path, start, identity):
        if not path.is_file(): return start
        return write(path, start, read_header(path)["identity"])
    monkeypatch.setattr(train, "read_checkpoint", anyone)
    with pytest.raises((AssertionError, pytest.fail.Exception)): law_foreign_is_refused(fit_from, checkpoint)


DAMAGE = {"truncated": lambda content: content[:len(content) // 2], "empty": lambda content: b"",
          "text": lambda content: b"epoch,loss\n" * 99,
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
        if len(calls) < 3: return state, loss
        return jax.tree.map(lambda w: w * np.nan if w.dtype == np.float32 else w, state), loss  # seen by validation only
    monkeypatch.setattr(train, "train_steps", breaking)
    with pytest.raises(TrainingDiverged, match="epoch 3"): train_flow(flow, Z, Z[:9], epochs=5, batch_size=64, checkpoint=checkpoint)
    assert all(np.array_equal(a, b) for a, b in zip(before, jax.tree.leaves(flow._params)))
    arrays, header = read_model(checkpoint, train.CHECKPOINT_FORMAT)
    assert all(np.isfinite(values).all() for values in arrays.values()) and len(header["losses"]) == 2


# --- Parquet ------------------------------------------------------------------------------------------------

def write_parquet(folder, frame, rows=(60, 45, 110, 85, 20), group=25):
    "Several files of unequal length, in row groups."
    folder.mkdir(parents=True, exist_ok=True)
    edges = np.cumsum([0, *rows])
    for i, (a, b) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        frame.iloc[a:b].to_parquet(folder / f"{i}.parquet", row_group_size=group, index=False)
    return folder


@pytest.fixture(scope="module")
def parquet(tmp_path_factory): return write_parquet(tmp_path_factory.mktemp("parquet") / "benign", X)


@pytest.fixture(scope="module")
def tickets(tmp_path_factory):
    "Records that are their own number."
    numbers = pd.DataFrame({"ticket": np.arange(320.0), "other": np.arange(320.0)[::-1]})
    return write_parquet(tmp_path_factory.mktemp("parquet") / "tickets", numbers)


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
    def another(self, group, fraction, seed): return draw(self, group, fraction, seed + 1)
    with pytest.raises(AssertionError): law_parquet_epochs(partial(ticket_chunks, tickets, held_out=another))


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
    misspelt = ["durations", "bytes", "gap"]
    with pytest.raises((KeyError, ValueError), match="durations"): quick(epochs=1).fit(ParquetRecords(parquet, columns=misspelt))


def test_a_file_that_is_no_parquet_is_named(parquet, tmp_path):
    (tmp_path / "bad.parquet").write_text("duration,bytes\n")
    with pytest.raises(ValueError, match="bad.parquet"): ParquetRecords(tmp_path)


def test_parquet_without_rows_is_refused(tmp_path):
    X[:0].to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="at least 8 benign records"): quick(epochs=1).fit(ParquetRecords(tmp_path))


def test_a_missing_number_in_parquet_names_its_file(tmp_path):
    bad = X.copy()
    bad.iloc[310, 1] = np.nan
    records = ParquetRecords(write_parquet(tmp_path / "bad", bad))
    with pytest.raises(ValueError, match="bytes.*4.parquet|4.parquet.*bytes"): quick(epochs=1).fit(records)


def test_files_of_different_columns_are_refused(parquet, tmp_path):
    X[["duration", "gap"]].to_parquet(tmp_path / "other.parquet")
    with pytest.raises((KeyError, ValueError), match="bytes"): quick(epochs=1).fit(ParquetRecords([parquet, tmp_path / "other.parquet"]))


@pytest.mark.parametrize("settings", [{"architecture": "coupling"}, {"architecture": "pzflow"}])
def test_couplings_refuse_what_they_would_ignore(settings, parquet, checkpoint):
    "pzflow's own loop needs all records in memory, and keeps no checkpoint."
    with pytest.raises(ValueError, match="architecture"): quick(epochs=1, **settings).fit(ParquetRecords(parquet))
    with pytest.raises(ValueError, match="checkpoint"): quick(epochs=1, **settings).fit(MILD, checkpoint=checkpoint)


# --- ensembles ----------------------------------------------------------------------------------------------

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
from nfad.detector import FlowDetector
X = pd.read_csv(sys.argv[1])
results = {"devices": jax.device_count()}
trainings = {"single": {}, "odd batch": {"batch_size": 66}, "lonely batch": {"batch_size": 63},
             "ensemble": {"n_members": 2, "epochs": 1}}
for name, settings in trainings.items():
    d = FlowDetector(**{"statistic": "log_prob", "hidden": 16, "epochs": 2, "batch_size": 64} | settings).fit(X)
    parts = {"loss": d.history_.train_loss, "validation": d.history_.validation_loss, "scores": d.anomaly_score(X),
             "few": d.anomaly_score(X[:5])}
    results |= {f"{name}: {part}": values for part, values in parts.items()}
np.savez(sys.argv[2], **results)
"""


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
    for key in set(one) - {"devices"}:
        assert np.allclose(one[key], four[key], rtol=5e-3, atol=5e-2), (key, np.abs(one[key] - four[key]).max())


def test_law_devices_agree(by_devices): law_devices_agree(*by_devices)


def test_law_devices_agree_catches_a_gradient_of_one_device(by_devices):
    one, four = by_devices
    with pytest.raises(AssertionError): law_devices_agree(one, four | {"single: scores": one["odd batch: scores"]})


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
