"""Datagrams of strangers: damaged and forged ones are read, held or counted; nothing crashes, hangs or grows."""
import json
import struct

from attacks import Attack, damage, run_attacks
from nfad.netflow import _MOST_HELD, _MOST_TEMPLATES, Exports, export_datagram
from traffic import a_request

SOUND = [export_datagram([a_request(i) for i in range(n)], version, template=template) for version in (5, 9, 10) for n in (0, 1, 24) for template in (True, False)]


def forged(attack: Attack) -> bytes:
    "A header that is right, and sets that claim anything."
    rng, version = attack.rng, attack.one_of([5, 9, 10])
    word = lambda: int(attack.one_of([0, 1, 2, 3, 4, 255, 256, 257, 0x8000, 0xFFFF, int(rng.integers(1 << 16))]))
    body = b"".join(struct.pack("!HH", word(), word()) for _ in range(int(rng.integers(0, 400))))
    head = {5: "!HHIIIIBBH", 9: "!HHIIII", 10: "!HHIII"}[version]
    numbers = [version, word(), *rng.integers(0, 1 << 32, 4 if version == 9 else 3 if version == 10 else 4).tolist()]
    return struct.pack(head, *numbers, *([0, 1, 0] if version == 5 else [])) + body


def test_attack_netflow():
    exports = Exports()
    def case(attack):
        data = forged(attack) if attack.rng.random() < 0.3 else damage(attack.one_of(SOUND), attack)
        before = exports.account()
        records = exports.read(data[:65507], f"10.0.{int(attack.rng.integers(200))}.1")
        assert all(isinstance(value, (int, str)) for record in records for value in record.values())
        json.dumps(records)
        assert len(exports.held) <= _MOST_HELD and len(exports.decoder.templates) <= _MOST_TEMPLATES
        after = exports.account()
        assert after["datagrams"] == before["datagrams"] + 1 and after["records"] == before["records"] + len(records)
        return "records" if records else "none"
    run_attacks("netflow", case)
