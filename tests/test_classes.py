"""Laws of nfad.classes: one name for each class, families, and what a label leaves open."""
import re

import numpy as np
import pytest

from nfad import classes
from nfad.classes import class_name, families, is_attempted, is_background


@pytest.mark.parametrize("label, name", [
    ("nonTOR", "benign"), ("BENIGN", "benign"), ("0", "benign"), ("FTP-Patator", "FTP Brute Force"), ("DDOS attack-HOIC", "DDoS HOIC"),
    ("Web Attack \u2013 XSS", "Web Attack XSS"), ("Web Attack \ufffd XSS", "Web Attack XSS"),
    ("'TOR'", "TOR"), ("My new_attack", "My new attack"), ("Normal Traffic", "benign"), ("Benign_Final", "benign"), ("Legitimate", "benign"),
    ("False", "benign"), ("Bots", "Botnet"), ("Port Scanning", "PortScan"), ("Web Attacks", "Web Attack"), ("Backdoor", "Backdoors"),
    ("PartOfAHorizontalPortScan", "Horizontal PortScan"), ("C&C", "Command and Control"), ("C&C-HeartBeat", "C&C-HeartBeat")])
def test_class_names(label, name): assert class_name(label) == name and class_name(name) == name


def law_ctu13(name, is_background):
    "CTU-13: normal is benign, a botnet an attack, and background neither; other tools' labels keep what they say."
    for way in ("", "From-", "To-"):
        assert name(f"flow={way}Normal-V42-Grill") == "benign" and name(f"flow={way}Botnet-V42-UDP-DNS") == "Botnet"
        assert name(f"flow={way}Background-UDP-Established") == "Background" and is_background(f"flow={way}Background")
    assert not any(map(is_background, ["flow=From-Normal-V42-Grill", "flow=From-Botnet-V42-TCP", "BENIGN", "Background-noise attack "]))
    assert name("Normal-looking flood") != "benign" and name("From-Normal-V1") != "benign"


def test_ctu13():
    law_ctu13(class_name, lambda label: is_background(label) if label.startswith("flow=") else False)
    assert is_background("Background") and class_name("From-Normal-V1", "argus") == "benign"


@pytest.mark.parametrize("name, background", [
    (lambda label: class_name(label, "argus"), is_background), (lambda label: re.sub("Background", "benign", class_name(label)), is_background),
    (class_name, lambda label: "flow=" in label), (lambda label: label, is_background)])
def test_ctu13_law_catches(name, background):
    with pytest.raises(AssertionError): law_ctu13(name, background)


def test_an_empty_attack_column_is_benign_where_the_tool_says_so():
    assert [class_name("-", tool) for tool in (None, "own", "netflow", "zeek", "unswnb15")] == ["-", "-", "-", "benign", "benign"]
    assert class_name(" Fuzzers ", "unswnb15") == "Fuzzers" and class_name("Malicious", "zeek") == "Malicious"


@pytest.mark.parametrize("name, family", [
    ("benign", "benign"), ("DoS Hulk", "DoS/DDoS"), ("Web Attack XSS", "web"), ("FTP Brute Force", "brute force"), ("PortScan", "scan"),
    ("Botnet", "bot"), ("Infiltration", "infiltration"),
    ("UDP-lag", "DoS/DDoS"), ("Something New", "other"), ("Heartbleed", "infiltration"),
    ("Exploits", "exploit"), ("Fuzzers", "exploit"), ("Generic", "exploit"), ("Shellcode", "exploit"), ("Reconnaissance", "scan"), ("Analysis", "scan"),
    ("Backdoors", "infiltration"), ("Backdoor Malware", "infiltration"), ("Theft", "infiltration"), ("Worms", "malware"), ("Background", "background"),
    ("Horizontal PortScan", "scan"), ("C&C-HeartBeat", "bot"), ("Mirai-greeth flood", "DoS/DDoS"), ("Malware", "other")])
def test_families(name, family): assert families(np.array([name])).tolist() == [family]


def test_every_listed_attack_has_a_family_but_tor():
    names = np.array(sorted(set(classes._CLASS_ALIASES.values())))
    assert set(names[families(names) == "other"]) <= {"TOR"}


def test_attempted():
    assert is_attempted("DoS Hulk - Attempted") and is_attempted("Botnet_attempted ") and not is_attempted("Attempted Hulk")
