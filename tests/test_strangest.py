"""Laws of nfad.strangest: a record's packets are those that it summarizes; files that calibrate do not train."""
import numpy as np
import pandas as pd
import pytest

from nfad.packets import flows_from_packets
from nfad.strangest import calibrating, capture_records, packets_of, simulated_packets
from nfad.throughput import simulated_frames, template_of, write_copies


@pytest.fixture(scope="module")
def packets(): return simulated_packets({"web": 6, "DNS": 3, "SSH": 2}, seed=3)


def law_packets(of, packets):
    "Packets, bytes and directions of each record come back."
    records = flows_from_packets(packets)
    for _, record in records.iterrows():
        mine = of(packets, record)
        assert mine.is_forward.sum() == record["Total Fwd Packets"] and (~mine.is_forward).sum() == record["Total Backward Packets"]
        assert mine.size[mine.is_forward].sum() == record["Total Length of Fwd Packets"]
        assert abs(mine.time[-1] - record["Flow Duration"]) <= 1 and (np.diff(mine.time) >= 0).all()


def test_packets_of_a_record(packets): law_packets(packets_of, packets)


@pytest.mark.parametrize("spoil", [lambda record: record.drop("Timestamp").reindex(record.index).fillna({"Timestamp": record["Timestamp"] - 1}),
                                   lambda record: record.rename({"Source Port": "Destination Port", "Destination Port": "Source Port"})])
def test_the_law_catches_other_packets(packets, spoil):
    with pytest.raises((AssertionError, ValueError)): law_packets(lambda table, record: packets_of(table, spoil(record)), packets)


def law_files(choose):
    "A file calibrates or trains, never both; some do either."
    capture = pd.Series(np.repeat([f"{k}.pcap" for k in range(8)], 5))
    chosen = choose(capture)
    assert set(capture[chosen]).isdisjoint(capture[~chosen]) and 0 < chosen.sum() < len(chosen)


def test_files(): law_files(calibrating)


def test_the_law_catches_a_cut_through_files():
    with pytest.raises(AssertionError): law_files(lambda capture: np.arange(len(capture)) % 4 == 0)


def test_a_single_file_gives_a_share():
    assert 10 < calibrating(pd.Series(["a.pcap"] * 100)).sum() < 45


def test_captures_are_found_by_what_they_hold(tmp_path):
    write_copies(tmp_path / "a.cap", template_of(simulated_frames(3, 6)), 1)
    for name in ("a.pcap.md5", "notes.txt", "a.pcap.nfstream.csv"): (tmp_path / name).write_text("no capture")
    assert capture_records(tmp_path)["capture"].unique().tolist() == [str(tmp_path / "a.cap")]
