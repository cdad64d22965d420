"""How attacks are drawn: as many as ATTACKS says, from ATTACK_SEED, for at most ATTACK_SECONDS each; and what must hold.

A fuzzer is one test that calls `run_attacks("models", case)`; `case(attack)` draws one input from `attack.rng` and
asserts what must hold. `make test` runs 500 of each, `make attack` 20,000. A case that fails says its number and seed;
ATTACK_SEED=... ATTACK_ONLY=number runs it alone."""
import os
import resource
import time
from collections import Counter
from typing import Any, Callable, NamedTuple

import numpy as np

ATTACKS = int(os.environ.get("ATTACKS", 500))
SEED = int(os.environ.get("ATTACK_SEED", 0))
SECONDS = float(os.environ.get("ATTACK_SECONDS", 60))  # of one fuzzer
LONGEST = 10.0     # CPU seconds of one case: beyond it hangs
PATIENCE = 12      # times as long it may take by the clock: others may be at work, too
MEMORY = 1 << 30   # bytes by which one case may raise the largest size of this process


class Attack(NamedTuple):
    "One case."
    number: int               # from 0
    rng: np.random.Generator  # of this case alone

    def one_of(self, choices) -> Any:
        "One of some things; a dict gives one of its keys."
        choices = list(choices)
        return choices[int(self.rng.integers(len(choices)))]


class TooLong(AssertionError): "A case did not end in time."


def run_attacks(
    name: str,                        # of the fuzzer
    case: Callable[[Attack], Any],    # asserts what must hold; what it returns is counted
    share: float = 1.0,               # of ATTACKS, where a case is dear
) -> Counter:                         # outcome -> cases
    "Throws cases until there are enough, or the time is over; each must end in time and within memory."
    only = os.environ.get("ATTACK_ONLY")
    numbers = range(max(int(ATTACKS * share), 1)) if only is None else [int(only)]
    key = int.from_bytes(name.encode()[:8], "little")
    began, outcomes = time.monotonic(), Counter()
    for number in numbers:
        if time.monotonic() - began > SECONDS: break
        def attack(number=number): return Attack(number, np.random.default_rng([SEED, key, number]))
        try:
            try: outcome = _bounded(case, attack())
            except TooLong: outcome = _bounded(case, attack())  # the first time, kernels may have been compiled
            outcomes[outcome] += 1
        except BaseException as error:
            error.add_note(f"{name}: again with ATTACK_SEED={SEED} ATTACK_ONLY={number}")
            raise
    told = ", ".join(f"{outcome} {n:,}" for outcome, n in outcomes.most_common())
    print(f"{name}: {sum(outcomes.values()):,} attacks of seed {SEED} in {time.monotonic() - began:.0f} s: {told}")
    return outcomes


def _bounded(case: Callable[[Attack], Any], attack: Attack) -> Any:
    "The outcome of a case that takes neither too long nor too much memory."
    clocks, before = (time.process_time, time.monotonic), _peak()
    began = [clock() for clock in clocks]
    outcome = case(attack)
    took, waited = (clock() - start for clock, start in zip(clocks, began, strict=True))
    if took >= LONGEST or waited >= PATIENCE * LONGEST: raise TooLong(f"took {took:.0f} s of CPU and {waited:.0f} s by the clock")
    assert _peak() - before < MEMORY, f"took {(_peak() - before) >> 20:,} MB"
    return outcome


def _peak() -> int: return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


# ---------------------------------------------------------------- what any file may suffer

def damage(data: bytes, attack: Attack) -> bytes:
    "One damage of a file: a bit or a byte changed, a piece cut out, written twice, moved, zeroed, filled or swapped."
    rng, n = attack.rng, len(data)
    if not n: return bytes(rng.integers(0, 256, 3, dtype=np.uint8))
    a, b = sorted(rng.integers(0, n + 1, 2).tolist())
    at = min(a, n - 1)
    kind = attack.one_of(["bit", "byte", "cut", "end", "twice", "zeros", "noise", "move", "more"])
    if kind == "bit": return data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1:]
    if kind == "byte": return data[:at] + bytes([int(rng.integers(256))]) + data[at + 1:]
    if kind == "cut": return data[:a] + data[b:]
    if kind == "end": return data[:a]
    if kind == "twice": return data[:b] + data[a:b] + data[b:]
    if kind == "zeros": return data[:a] + bytes(b - a) + data[b:]
    if kind == "noise": return data[:a] + rng.bytes(b - a) + data[b:]
    if kind == "move": return data[b:] + data[a:b] + data[:a]
    return data + rng.bytes(int(rng.integers(1, 40)))
