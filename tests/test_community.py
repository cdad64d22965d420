"""Laws of nfad.community: the ids that the reference implementation gives, from either side, compiled or not."""
import ipaddress

import numpy as np
import pytest

from nfad.community import community_ids, quick_ids

# protocol, addresses, ports as `00e_headers` gives them, one way; and what pycommunityid 1.5.0 says
KNOWN = [
    (6, "128.232.110.120", "66.35.250.204", 34855, 80, False, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
    (17, "192.168.1.52", "8.8.8.8", 54585, 53, False, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
    (1, "192.168.0.89", "192.168.0.1", 8, 0, False, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
    (58, "fe80::200:86ff:fe05:80da", "fe80::260:97ff:fe07:69ea", 135, 136, False, "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="),
    (1, "10.0.0.1", "10.0.0.2", 3, 1, True, "1:gkoOC4ouXvyYq0Ek/WqwbLoqcxM="),
    (1, "10.0.0.2", "10.0.0.1", 3, 1, True, "1:JHjlyD5IJJjl3wHWOMj46lLWZag="),
    (132, "192.168.170.8", "192.168.170.56", 7, 80, False, "1:jQgCxbku+pNGw8WPbEc/TS/uTpQ="),
    (6, "2001:db8::1", "2001:db8::2", 1, 2, False, "1:oIcW+IHPKeZS9W98/OLFv2ivJKk=")]


def asked(rows):
    "Arguments of `community_ids`."
    halves = lambda text: divmod(int(ipaddress.ip_address(text)), 1 << 64)
    return (np.array([ipaddress.ip_address(row[1]).version for row in rows]), *(np.array([halves(row[k]) for row in rows], np.uint64) for k in (1, 2)),
            np.array([row[3:5] for row in rows]), np.array([row[0] for row in rows]), np.array([row[5] for row in rows]))


def law_known(ids):
    assert list(ids(*asked(KNOWN))) == [row[-1] for row in KNOWN]
    turned = [(p, b, a, y, x, one, said) for p, a, b, x, y, one, said in KNOWN if not one]
    assert list(ids(*asked(turned))) == [row[-1] for row in turned]


def test_plain(): law_known(community_ids)


def test_compiled(): law_known(lambda *given: quick_ids(*given).to_pylist())


def test_the_law_catches_ids_of_one_side():
    with pytest.raises(AssertionError): law_known(lambda *given: community_ids(*given[:-1], np.ones(len(given[0]), bool)))


def test_seeds_give_other_ids():
    assert community_ids(*asked(KNOWN), seed=1)[0] != KNOWN[0][-1]
    assert list(community_ids(*asked(KNOWN), seed=513)) == quick_ids(*asked(KNOWN), seed=513).to_pylist()
    with pytest.raises(ValueError, match="seed"): community_ids(*asked(KNOWN), seed=-1)
