"""Laws of exported flows: scores agree, broken twins are noticed, an unknown part of the score is refused."""
import copy
import dataclasses

import numpy as np
import pandas as pd
import pytest

from nfad import export_flow
from nfad.detector import FlowDetector
from nfad.export import Graph, open_session, run_session
from nfad.export_flow import _surprise_nodes, flow_to_onnx
from nfad.statistics import PARTS
from nfad.tail import Tail
from nfad.verdicts import VerdictModel
from test_export import X, blobs


SMALL = dict(epochs=3, hidden=16, n_bins=5, n_layers=2)
FLOWS = {"profile": SMALL, "log_prob": SMALL | {"statistic": "log_prob"}, "members": SMALL | {"n_members": 2, "feature_order": "shuffled"}}


@pytest.fixture(scope="module")
def flows(): return {name: FlowDetector(**settings).fit(X.assign(flat=2.0)) for name, settings in FLOWS.items()}


def probes():
    "Records that no flow has seen: usual ones, far ones, all zero, with a broken constant, and very far ones."
    base = blobs(seed=1)[0].assign(flat=2.0)
    return pd.concat([base, base * 1000, base * 0, base.assign(flat=7.0), base * 1e12]).astype(np.float32)


def law_flow_scores_agree(export, flow):
    Z = probes()
    exact, exported = flow.anomaly_score(Z), run_session(open_session(export(flow)), Z)
    assert np.isfinite(exported).all() and np.allclose(exported, exact, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("name", list(FLOWS))
def test_flow(flows, name): law_flow_scores_agree(flow_to_onnx, flows[name])


def test_flow_without_its_statistic(flows):
    flow = flows["profile"]
    exported = run_session(open_session(flow_to_onnx(flow, "log_prob")), probes())
    assert np.allclose(exported, -flow.log_prob(probes()), rtol=1e-4, atol=2e-3)
    with pytest.raises(ValueError, match="statistic must be"): flow_to_onnx(flows["log_prob"], "profile")


def broken(flow, change):
    "A copy of a detector with something changed."
    twin = copy.deepcopy(flow)
    change(twin)
    return twin


@pytest.mark.parametrize("change", [lambda twin: setattr(twin, "constant_cost_", 0.0), lambda twin: setattr(twin.statistic_, "high", 5.0),
                                    lambda twin: setattr(twin.statistic_.tails_["record"], "scale", 1.0),
                                    lambda twin: setattr(twin, "latent_df", 9.0)])
def test_flow_catches(flows, change):
    with pytest.raises(AssertionError): law_flow_scores_agree(lambda flow: flow_to_onnx(broken(flow, change)), flows["profile"])


def test_another_architecture_is_refused(flows):
    pzflow = broken(flows["profile"], lambda twin: setattr(twin, "architecture", "pzflow"))
    with pytest.raises(ValueError, match="architecture of an exported flow"): flow_to_onnx(pzflow)


def test_every_part_of_the_score_has_nodes(flows, monkeypatch):
    "An unknown part is an error that names it, and no score that silently lacks it."
    assert set(export_flow._PART_NODES) == {part.name for part in PARTS}
    monkeypatch.setattr(export_flow, "PARTS", (*PARTS, dataclasses.replace(PARTS[0], name="moon")))
    with pytest.raises(ValueError, match="'moon'"): flow_to_onnx(flows["profile"])


@pytest.mark.parametrize("shape", [0.0, 0.4])
def test_tail_nodes_equal_the_tail(shape):
    rng = np.random.default_rng(0)
    tail = Tail(rng.exponential(size=300))
    tail.shape = shape
    graph, x = Graph(), np.concatenate([rng.uniform(0, 12, 200), [0.0, 1e6]])[:, None].astype(np.float32)
    distance = graph.double(graph("Squeeze", "records", np.array([1])))
    found = run_session(open_session(graph.model(graph.single(_surprise_nodes(graph, distance, tail)), ["n"], 1)), x)
    assert np.allclose(found, tail.surprise(x[:, 0].astype(np.float64)), rtol=1e-6)


def learnt(flow, n_attacks):
    "A model that was told of a few attacks, a hundred times as large as anything benign, and of five benign records."
    known = pd.concat([X[:n_attacks] * 100, X[n_attacks:n_attacks + 5]]).assign(flat=2.0)
    return VerdictModel.learn(flow, known, np.arange(n_attacks + 5) < n_attacks, blobs(seed=3)[0].assign(flat=2.0))


def law_answers_come_along(export, model):
    "Nearly all scores agree; a rounding may move a record by a rank among benign ones, never over the threshold."
    Z = probes()
    exact, exported = model.anomaly_score(Z), run_session(open_session(export(model)), Z)
    gap = np.abs(exact - exported)
    assert np.quantile(gap, 0.97) < 1e-3 and gap.max() < 0.7
    assert ((exact > model.threshold_) == (exported > model.threshold_)).mean() > 0.999


@pytest.mark.parametrize("n_attacks", [1, 6])
def test_answers_come_along(flows, n_attacks):
    model = learnt(flows["profile"], n_attacks)
    roots = model.forest_.feature[model.forest_.root]
    assert (n_attacks > 1) or (roots < 0).any(), "trees of one leaf are part of this test"
    law_answers_come_along(flow_to_onnx, model)


@pytest.mark.parametrize("change", [lambda twin: setattr(twin, "forest_", None),
                                    lambda twin: setattr(twin, "forest_", twin.forest_._replace(child=twin.forest_.child[:, ::-1])),
                                    lambda twin: setattr(twin, "default_calibration_", twin.default_calibration_ + 5)])
def test_answers_come_along_catches(flows, change):
    model = learnt(flows["profile"], 6)
    with pytest.raises(AssertionError): law_answers_come_along(lambda flow: flow_to_onnx(broken(flow, change)), model)
