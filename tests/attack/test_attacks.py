"""The driver of all fuzzers notices what hangs, what fails and what takes memory, and repeats a case."""
import time

import numpy as np
import pytest

import attacks
from attacks import Attack, damage, run_attacks


def test_what_hangs_or_grows_is_noticed(monkeypatch):
    def busy(attack):
        end = time.process_time() + 0.05
        while time.process_time() < end: pass
    monkeypatch.setattr(attacks, "LONGEST", 0.02)
    with pytest.raises(AssertionError, match="took 0 s of CPU"): run_attacks("slow", busy)
    with pytest.raises(AssertionError, match="s by the clock"): run_attacks("waiting", lambda attack: time.sleep(attacks.PATIENCE * 0.025))
    monkeypatch.setattr(attacks, "LONGEST", 10)
    monkeypatch.setattr(attacks, "MEMORY", 64 << 20)
    with pytest.raises(AssertionError, match="MB"): run_attacks("large", lambda attack: np.ones(1 << 27).sum())


def test_what_is_slow_once_is_asked_again(monkeypatch):
    monkeypatch.setattr(attacks, "LONGEST", 0.02)
    drawn = []
    def compiles(attack):
        drawn.append(attack.rng.integers(1 << 30))
        end = time.process_time() + 0.05 * (len(drawn) == 1)
        while time.process_time() < end: pass
    assert run_attacks("compiled", compiles, 3 / attacks.ATTACKS).total() == 3
    assert len(drawn) == 4 and drawn[0] == drawn[1] != drawn[2]


def test_a_failed_case_is_named_and_comes_again(monkeypatch):
    drawn = []
    def case(attack):
        drawn.append(attack.rng.integers(1 << 30))
        assert attack.number < 7
    with pytest.raises(AssertionError) as failed: run_attacks("named", case)
    assert "ATTACK_ONLY=7" in failed.value.__notes__[0]
    monkeypatch.setenv("ATTACK_ONLY", "7")
    with pytest.raises(AssertionError): run_attacks("named", case)
    assert len(drawn) == 9 and drawn[-1] == drawn[-2]


def test_time_ends_a_fuzzer(monkeypatch):
    monkeypatch.setattr(attacks, "SECONDS", 0.05)
    assert 0 < run_attacks("timed", lambda attack: time.sleep(0.02)).total() < 5


def test_damage_changes_nearly_always():
    data = bytes(range(200))
    damaged = {damage(data, Attack(i, np.random.default_rng(i))) for i in range(200)}
    assert len(damaged) > 150 and damage(b"", Attack(0, np.random.default_rng(0)))
