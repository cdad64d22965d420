"""Laws of nfad.sensors: the text of the table, and what each tool's header becomes through it."""
import pandas as pd
import pytest

from nfad.sensors import HEADERLESS, SENSOR_COLUMNS, read_columns
from nfad.vocabulary import _OWN_WORDS, _WORDS, canonical_columns, column_key, column_role, find_vocabulary

# What the tools write, a line each; the rest of a header follows the same pattern.
HEADERS = {tool: line.split() for tool, line in {
    "zeek": """ts uid id.orig_h id.orig_p id.resp_h id.resp_p proto service duration orig_bytes resp_bytes conn_state local_orig
        local_resp missed_bytes history orig_pkts orig_ip_bytes resp_pkts resp_ip_bytes tunnel_parents orig_l2_addr label detailedlabel""",
    "suricata": """timestamp flow_id event_type src_ip src_port dest_ip dest_port proto app_proto flow.pkts_toserver flow.pkts_toclient
        flow.bytes_toserver flow.bytes_toclient flow.start flow.end flow.age flow.state flow.reason flow.alerted tcp.tcp_flags tcp.syn""",
    "argus": "StartTime Dur Proto SrcAddr Sport Dir DstAddr Dport State sTos dTos TotPkts TotBytes SrcBytes SrcPkts Label",
    "netflow": """IPV4_SRC_ADDR L4_SRC_PORT IPV4_DST_ADDR L4_DST_PORT PROTOCOL L7_PROTO IN_BYTES OUT_BYTES IN_PKTS OUT_PKTS TCP_FLAGS
        FLOW_DURATION_MILLISECONDS FLOW_START_MILLISECONDS FLOW_END_MILLISECONDS MIN_TTL DNS_QUERY_ID SRC_TO_DST_IAT_MIN Label Attack""",
    "nfstream": """id expiration_id src_ip src_mac src_port dst_ip dst_port protocol ip_version vlan_id bidirectional_first_seen_ms
        bidirectional_last_seen_ms bidirectional_duration_ms bidirectional_packets src2dst_first_seen_ms src2dst_mean_ps
        dst2src_max_piat_ms dst2src_rst_packets application_name user_agent""",
    "unswnb15": " ".join(HEADERLESS["unswnb15"]),
    "nfdump": " ".join(HEADERLESS["nfdump"]),
    "lycos": """flow_id src_addr src_port dst_addr dst_port ip_prot timestamp flow_duration fwd_pkt_cnt bwd_pkt_len_tot bytes_per_s
        iat_mean fwd_iat_mean fwd_flag_psh flag_SYN down_up_ratio fwd_tcp_init_win_bytes bwd_pkt_hdr_len_min label""",
    "ntlflowlyzer": """flow_id timestamp src_ip src_port dst_ip dst_port protocol duration packets_count fwd_payload_bytes_mean
        bwd_mode_header_bytes active_mean idle_std subflow_fwd_bytes packet_IAT_std packets_IAT_mean fwd_syn_flag_counts label""",
}.items()}
TON_IOT = """ts src_ip src_port dst_ip dst_port proto service duration src_bytes dst_bytes conn_state missed_bytes src_pkts src_ip_bytes
    dst_pkts dst_ip_bytes dns_query dns_qclass dns_rcode ssl_version http_method http_user_agent weird_name label type""".split()
OTHER = {  # second spellings of the same tools
    "zeek": "ts uid id_orig_h id_resp_h orig_bytes resp_bytes conn_state", "nfdump": "firstSeen duration proto srcAddr dstAddr packets bytes flows",
    "argus": "pkSeqID stime saddr daddr sport dport proto state dur spkts dpkts mean stddev min max TnBPSrcIP attack category",
    "unswnb15": "id dur proto service state spkts dpkts sbytes dbytes rate sttl sload sinpkt smean ct_srv_src attack_cat label"}


# ---------------------------------------------------------------- the text of the table
def law_expansion(read):
    "Braces stand for every combination; the k-th of another cell go with the k-th of the name; a role that is missing is a feature."
    rows = read("""
{a,b}_{x,y,z} | size | bytes | {first,second}, {1,2,3}
    = {A,B}{X,Y,Z}
    = {A,B}.{X,Y,Z}
plain | state | text | no braces
    | word
    other = P, Q
""", "mine")
    assert rows.name.tolist() == ["a_x", "a_y", "a_z", "b_x", "b_y", "b_z", "plain"]
    assert rows.description[4] == "second, 2" and rows.aliases[4] == {"mine": ("BY", "B.Y")}
    assert rows.role.tolist() == ["feature"] * 6 + ["word"] and rows.aliases[6] == {"other": ("P", "Q")}


def test_expansion(): law_expansion(read_columns)


def transposed(text: str, vocabulary: str) -> pd.DataFrame:
    "A twin that takes the braces of a cell in the wrong order."
    return read_columns(text.replace("{first,second}, {1,2,3}", "{1,2,3}, {first,second}"), vocabulary)


@pytest.mark.parametrize("twin", [
    transposed, lambda text, tool: read_columns(text, tool).drop(index=2), lambda text, tool: read_columns(text, tool).assign(role="feature")])
def test_expansion_law_catches(twin):
    with pytest.raises((AssertionError, IndexError, KeyError)): law_expansion(twin)


@pytest.mark.parametrize("text, words", [
    ("a | b | c", "4 or 5 cells"), ("a | b | c | d | e | f", "4 or 5 cells"), ("a | b | c | {d,e}", "more braces"), ("a | b | c | d\n    = {x,y}", "more braces")])
def test_a_bad_line_is_refused(text, words):
    with pytest.raises(ValueError, match=words): read_columns(text, "mine")


# ---------------------------------------------------------------- headers
def law_header(tool, header, find, rename):
    "A tool's header is known as its own, in any case and order; canonical names are their own names, and belong to its table."
    assert find(header) == find([name.upper() for name in header]) == find(header[::-1]) == tool
    names = rename(header)
    assert len(set(names)) == len(names) and rename(names) == names
    assert rename([f' "{name.upper()}" ' for name in header]) == names
    own = set(SENSOR_COLUMNS.name[SENSOR_COLUMNS.vocabulary == tool])
    assert all(name in own or column_key(name) in _WORDS[tool] for name in names), set(names) - own
    assert {"Source IP", "Destination IP"} <= set(names) and column_role("Source IP", tool) == "identifier"


ALL = [*HEADERS.items(), ("zeek", TON_IOT), *((tool, line.split()) for tool, line in OTHER.items() if tool != "unswnb15")]


@pytest.mark.parametrize("tool, header", ALL)
def test_header(tool, header): law_header(tool, header, find_vocabulary, canonical_columns)


@pytest.mark.parametrize("find, rename", [
    (lambda header: "cicflowmeter" if "active_mean" in header or "ts" in header else find_vocabulary(header), canonical_columns),
    (find_vocabulary, lambda header: [{"Source IP": "src"}.get(name, name) for name in canonical_columns(header)]),
    (find_vocabulary, lambda header: [name.strip() for name in header])])
def test_header_law_catches(find, rename):
    with pytest.raises(AssertionError):
        for tool, header in ALL: law_header(tool, header, find, rename)


def test_the_set_files_of_unsw_nb15_have_other_names_for_the_same():
    assert find_vocabulary(OTHER["unswnb15"].split()) == "unswnb15"
    raw = dict(zip(HEADERLESS["unswnb15"], canonical_columns(HEADERLESS["unswnb15"])))
    assert [raw[name] for name in ("smeansz", "Sintpkt", "Spkts", "Stime")] == ["smean", "sinpkt", "spkts", "Timestamp"]
    assert len(raw) == 49 and len(HEADERLESS["nfdump"]) == 48


# ---------------------------------------------------------------- what a detector must not see by default
NEVER = """ts Stime Ltime flow.start flow.end LastTime lastSeen received FLOW_START_MILLISECONDS FLOW_END_MILLISECONDS
    bidirectional_first_seen_ms dst2src_last_seen_ms stcpb dtcpb SrcTCPBase sIpId DNS_QUERY_ID id pkSeqID Seq pcap_cnt cnt
    sttl dttl ct_state_ttl MIN_TTL MAX_TTL sTos dTos stos sHops minTTL vlan vlan_id sVlan srcVlan uid flow_id community_id
    src_mac orig_l2_addr ismc SrcMac ether.src_mac src_oui in out sas Dataset Label Attack attack_cat detailed-label flow.alerted category
    L7_PROTO TCP_FLAGS conn_state history State Dir service app_proto proto pr PROTOCOL protocol application_name
    id.orig_p L4_DST_PORT src_port sport Dport user_agent requested_server_name splt_ps tunnel_id expiration_id""".split()


def law_never(role_of):
    "Times, counters, codes, time to live, addresses, labels, ports and texts are features of no tool."
    for tool, words in _OWN_WORDS.items():
        for name in NEVER:
            known = words.get(column_key(name))
            if known: assert role_of(known, tool) != "feature", (tool, name)


def test_never(): law_never(column_role)


@pytest.mark.parametrize("wrong", ["time", "counter", "testbed", "word", "letters", "label", "text", "port"])
def test_never_law_catches(wrong):
    with pytest.raises(AssertionError):
        law_never(lambda name, tool: "feature" if column_role(name, tool) == wrong else column_role(name, tool))


def test_roles_depend_on_the_tool():
    assert [column_role("service", tool) for tool in (None, "cicflowmeter", "zeek", "unswnb15")] == ["label", "label", "word", "word"]
    assert column_role("service", "own") == "feature" and column_role("Protocol") == "code" and column_role("Protocol", "zeek") == "word"
    assert [column_role(name, "own") for name in ("Attack_type", "Attack Type", "Attack_label", "label", "attackers")] == ["label"] * 4 + ["feature"]
    assert column_role("Source IP.1", "zeek") == "identifier" and column_role("my.1", "zeek") == "feature"


def test_all_of_lycos_is_used():
    names = canonical_columns(HEADERS["lycos"])
    assert names[7:12] == ["Flow Duration", "Total Fwd Packets", "Total Length of Bwd Packets", "Flow Bytes/s", "Flow IAT Mean"]
    assert [name for name in names if column_role(name, "lycos") == "feature"] == names[7:-1]


def test_seconds_are_not_taken_for_microseconds():
    names = canonical_columns(HEADERS["ntlflowlyzer"])
    assert "active_mean" in names and "Active Mean" not in names
    units = SENSOR_COLUMNS[SENSOR_COLUMNS.vocabulary == "ntlflowlyzer"].set_index("name").unit
    assert units[["duration", "active_mean", "packets_IAT_variance", "idle_cov"]].tolist() == ["s", "s", "s^2", "ratio"]


def test_a_few_columns_are_enough():
    copies = {"argus": "dur proto dir state stos dtos tot_pkts tot_bytes src_bytes label Family", "zeek": "ts duration orig_bytes resp_bytes conn_state",
              "netflow": "IN_BYTES OUT_BYTES IN_PKTS OUT_PKTS L7_PROTO", "unswnb15": "dur spkts sinpkt ct_srv_src label"}
    assert {tool: find_vocabulary(header.split()) for tool, header in copies.items()} == {tool: tool for tool in copies}


def test_a_file_of_ones_own_stays_so():
    for header in (["duration", "protocol_type", "service", "flag", "src_bytes", "dst_bytes", "land", "count", "srv_count", "rate"],
                   ["src_ip", "dst_ip", "src_port", "dst_port", "proto", "duration", "bytes", "packets", "state", "label"],
                   ["frame.number", "ip.src", "tcp.flags", "ip.ttl", "min", "max", "mean"], ["ts", "duration", "bytes", "packets", "label"], ["proto", "service", "flag", "src_bytes", "dst_bytes"], [], ["", " ", "-"]):
        assert find_vocabulary(header) == "own"
