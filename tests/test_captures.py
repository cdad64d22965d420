"""Laws of the study on captures: no run on two sides, the unseen device nowhere in training, windows that do not overlap, sums that are means."""
import numpy as np
import pandas as pd
import pytest

from nfad import captures
from nfad.captures import CAPTURE_FEATURES, read_runs, split_runs, sum_up, windows_of
from nfad.flowmeter import UDP
from traffic import ip_frame, write_pcap


def runs(n_devices=3, n_runs=9, n_flows=4) -> pd.DataFrame:
    rows = [(f"d{d}", f"r{r}") for d in range(n_devices) for r in range(n_runs) for _ in range(n_flows)] + [("attacks", "scan")] * 5 + [("apps", "zoom")] * 5
    return pd.DataFrame(rows, columns=["device", "run"]).assign(time=range(len(rows)))


def law_sides(split, flows):
    "Each run is on one side, the unseen device on its own, attacks and apps train nothing, and every other device trains, calibrates and is held out."
    for seed in range(20):
        part = pd.Series(split(flows, "d1", seed))
        assert (flows.assign(part=part).groupby(["device", "run"])["part"].nunique() == 1).all()
        assert set(part[flows["device"] == "d1"]) == {"unseen"} and set(part[flows["device"] == "attacks"]) == {"attacks"} and set(part[flows["device"] == "apps"]) == {"apps"}
        assert all(set(part[flows["device"] == device]) == {"train", "calibrate", "held out"} for device in ("d0", "d2"))


def test_law_sides(): law_sides(split_runs, runs())


def test_law_sides_catches():
    by_row = lambda flows, unseen, seed: np.where(flows["device"].isin(["attacks", "apps"]), flows["device"], np.where(
        flows["device"] == unseen, "unseen", np.random.default_rng(seed).choice(["train", "calibrate", "held out"], len(flows))))
    with pytest.raises(AssertionError): law_sides(by_row, runs())


@pytest.mark.parametrize("n", [0, 19, 20, 39, 40, 241, 5000])
def test_windows_do_not_overlap(n):
    found = [(rows.start, rows.stop) for rows in windows_of(n)]
    assert all(stop - start == 20 and stop <= n for start, stop in found) and all(a[1] <= b[0] for a, b in zip(found, found[1:]))
    assert len(found) == min(n // 20, 12)


def test_captures_become_runs(tmp_path):
    frames = [(1_700_000_000 + i, ip_frame(4, UDP, 7, 9, 2000 + i, 53, 40, 0, 0)) for i in range(3)]
    for name in ("iot/plug/a.pcap", "iot/plug/b.pcap", "iot/camera/a.pcap", "attacks/scan.pcap"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_pcap(tmp_path / name, frames)
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "zoom.pcap.nfstream.csv").write_text("no capture")
    flows = read_runs(tmp_path)
    assert flows.groupby(["device", "run"]).size().to_dict() == {("attacks", "scan"): 3, ("camera", "a"): 3, ("plug", "a"): 3, ("plug", "b"): 3}
    assert "Protocol" not in CAPTURE_FEATURES and flows[CAPTURE_FEATURES].notna().all(axis=None)


def test_sums_are_means_and_name_the_unseen(monkeypatch):
    row = {"flows": 10, "windows": 0, "in a window": np.nan, "p < 0.05": 0.5}
    judged = pd.DataFrame([row | {"capture": name, "unseen": unseen, "p < 0.01": share} for name, unseen, share in
                           [("held out", "a", 0.0), ("held out", "b", 0.2), ("unseen", "a", 0.4), ("unseen", "b", 0.6)]])
    table = sum_up(judged)
    assert table["p < 0.01"].to_dict() == {"held out": 0.1, "unseen: a": 0.4, "unseen: b": 0.6}
    assert table.loc["held out", ["p < 0.01, least", "p < 0.01, most", "splits"]].tolist() == [0.0, 0.2, 2]
    assert captures.plot_found(table).get_xlim() == (-0.02, 1.02)
