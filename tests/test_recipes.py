"""Laws of recipes, each with a broken twin that must fail: each number is made from its own record's cells, by the plain rule."""
import copy
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nfad.recipes import (
    HOWS, Feature, chosen_features, is_plain, learn_recipe, make_numbers, needed_columns, plain_recipe, recipe_from_plain, recipe_to_plain)
from nfad.serving import frame_numbers

fuzz = settings(deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
WORDS = ["tcp", "udp", "TCP ", "-", "", "icmp", "6.0", "6", "other", "missing", "a,b"]
HEXES = ["0x10", "0xFF", "0x0018", "", "-"]
LETTERS = ["ShADad", "S", "Dd", "", "-", "^dA", "ss"]


def cells(seed, n=60):
    "Cells of benign records: two columns that are missing together, one alone, one mostly empty, words and letters."
    rng = np.random.default_rng(seed)
    numbers = pd.DataFrame({name: rng.lognormal(2, 1, n).round(2) for name in ("packets", "bytes", "duration", "rate", "rare")})
    together = rng.random(n) < 0.3
    numbers.loc[together, ["duration", "rate"]] = np.nan
    numbers.loc[rng.random(n) < 0.1, "bytes"] = [np.nan, np.inf][seed % 2]
    numbers.loc[1:, "rare"] = np.nan
    words = pd.DataFrame({"proto": rng.choice(WORDS[:6], n), "history": rng.choice(LETTERS, n), "window": rng.choice(HEXES, n)})
    return numbers, words


def odd_cells(seed, n=25):
    "Cells as anybody may send them later."
    rng = np.random.default_rng(seed)
    numbers = pd.DataFrame({name: rng.choice([1.0, 2.5, -3, np.nan, np.inf, -np.inf, 1e300], n)
                            for name in ("packets", "bytes", "duration", "rate", "rare")})
    return numbers, pd.DataFrame({"proto": rng.choice(WORDS, n), "history": rng.choice(LETTERS, n), "window": rng.choice([*HEXES, "17", "0xg", "0x"], n)})


def recipe_of(seed=0):
    numbers, words = cells(seed)
    return learn_recipe(numbers, words, ["history"], ["window"])[0]


def make(recipe, numbers, words):
    return make_numbers(recipe, {name: numbers[name].to_numpy(float) for name in numbers}, {name: words[name] for name in words})


# ---------------------------------------------------------------- by the plain rule

NOTHING = {"", "-", "(empty)", "?", "nan", "none", "null", "n/a", "na", "<na>"}


def tidy(word, keep_case=False):
    word = "" if word is None else word.strip()
    if word.endswith(".0") and word[:-2].lstrip("-").isdigit(): word = word[:-2]
    if word.lower() in NOTHING: return ""
    return word if keep_case else word.lower()


def one_number(feature, recipe, row):
    "One number of one record, step by step."
    there = lambda name: np.isfinite(row[name])
    if feature.how == "gaps":
        odd = 0
        for f in recipe:
            if f.how != "number" or f.word == f.column: continue  # what may be missing by itself says so by its own feature
            odd += (there(f.column) != there(f.word)) if f.word else not there(f.column)
        return float(odd)
    if feature.how == "number": return row[feature.column] if there(feature.column) or np.isnan(feature.fill) else feature.fill
    if feature.how == "missing": return float(not there(feature.column))
    if feature.how == "letter": return float(tidy(row[feature.column], keep_case=True).count(feature.word))
    word = tidy(row[feature.column])
    if feature.how == "hex":
        try: return float(int(word, 16)) if word.startswith("0x") else feature.fill
        except ValueError: return feature.fill
    if feature.how == "word": return float(word == feature.word)
    return float(word not in json.loads(feature.word))


def law_plain(recipe, numbers, words, maker=make):
    "All numbers are those that the rule gives for each record by itself."
    X = maker(recipe, numbers, words)
    rows = pd.concat([numbers, words], axis=1).to_dict("records")
    expected = np.array([[one_number(feature, recipe, row) for feature in recipe] for row in rows], float).reshape(X.shape)
    assert np.array_equal(X, expected, equal_nan=True), "another number"


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 40))
@settings(fuzz, max_examples=25)
def test_law_plain(seed, other, n):
    recipe = recipe_of(seed % 7)
    law_plain(recipe, *odd_cells(other, n))
    subset = [feature for i, feature in enumerate(recipe) if (other >> (i % 20)) & 1]
    law_plain(subset, *odd_cells(other, n))
    law_plain(plain_recipe(["bytes", "rate"]), *odd_cells(other, n))


@pytest.mark.parametrize("spoil", [
    lambda X: np.nan_to_num(X), lambda X: np.where(X == 0, 1, X), lambda X: X[::-1], lambda X: np.roll(X, 1, axis=1),
    lambda X: np.clip(X, -1e6, 1e6)])
def test_law_plain_catches(spoil):
    recipe = [*plain_recipe(["bytes"]), *recipe_of()]
    with pytest.raises(AssertionError, match="another number"): law_plain(recipe, *odd_cells(3), lambda *given: spoil(make(*given)))


@pytest.mark.parametrize("kind", [lambda words: words, lambda words: pa.array(words), lambda words: np.array(words, object),
                                  lambda words: pa.array(words).dictionary_encode().dictionary_decode()])
def test_words_of_any_kind(kind):
    words = ["tcp", "UDP ", None, "-", "x"]
    recipe = [Feature(f"proto is {word}", "proto", "word", word) for word in ("tcp", "udp", "")] + [Feature("proto is other", "proto", "other", json.dumps(["tcp", "udp", ""]))]
    assert make_numbers(recipe, {}, {"proto": kind(words)}).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_numbers_written_as_words_are_the_same_word():
    recipe = [Feature("proto is 6", "proto", "word", "6")]
    for kind in (["6", "17"], ["6.0", "17.0"], [6, 17], [6.0, 17.0], [6.0, None]): assert make_numbers(recipe, {}, {"proto": kind})[:, 0].tolist() == [1, 0]


# ---------------------------------------------------------------- company

def law_company(recipe, numbers, words, maker=make):
    "A record's numbers do not depend on the records beside it, nor on their order."
    X = maker(recipe, numbers, words)
    order = np.random.default_rng(0).permutation(len(numbers))
    assert np.array_equal(maker(recipe, numbers.iloc[order], words.iloc[order]), X[order], equal_nan=True), "the order matters"
    for i in range(len(numbers)):
        alone = maker(recipe, numbers.iloc[[i]].reset_index(drop=True), words.iloc[[i]].reset_index(drop=True))
        assert np.array_equal(alone[0], X[i], equal_nan=True), "the company matters"


@given(st.integers(0, 10**6))
@settings(fuzz, max_examples=20)
def test_law_company(seed): law_company(recipe_of(seed % 5), *odd_cells(seed, 12))


def filled_by_the_median(recipe, numbers, words): return make(recipe, numbers.fillna(numbers.median()), words)


def test_law_company_catches():
    numbers, words = odd_cells(1, 12)
    recipe = [feature._replace(fill=np.nan) for feature in recipe_of()]
    with pytest.raises(AssertionError, match="matters"): law_company(recipe, numbers, words, filled_by_the_median)


# ---------------------------------------------------------------- learning

def law_learnt(numbers, words, learn=lambda n, w: learn_recipe(n, w, ["history"])):
    "Benign records are whole: no number is missing, none is made up, nothing is odd, and what was missing can be told from what was there."
    recipe, skipped = learn(numbers, words)
    names = [feature.name for feature in recipe]
    assert len(set(names)) == len(names), "two features of one name"
    assert {f.column for f in recipe} - {""} | set(skipped) == {*numbers, *words}, "a column is lost"
    X = pd.DataFrame(make(recipe, numbers, words), columns=names)
    assert np.isfinite(X.to_numpy()).all(), "a number is missing"
    if "missing cells" in X: assert (X["missing cells"] == 0).all(), "benign records are odd"
    for name in numbers:
        if name in skipped: continue
        told = np.isfinite(numbers[name])
        assert (X.loc[told, name] == numbers.loc[told, name]).all(), "a number is changed"
        assert (X.loc[~told, name] == numbers.loc[told, name].median()).all(), "not the median"
        marks = [f for f in recipe if f.how == "missing" and np.array_equal(~np.isfinite(numbers[f.column]), ~told)]
        assert told.all() or len(marks) == 1, "what is missing is not marked"


@pytest.mark.parametrize("seed", range(6))
def test_law_learnt(seed): law_learnt(*cells(seed))


@pytest.mark.parametrize("spoil, message", [
    (lambda r: [f._replace(fill=0.0) if f.how == "number" else f for f in r], "not the median"), (lambda r: [f for f in r if f.how != "missing"], "not marked"),
    (lambda r: [f for f in r if f.column != "bytes"], "column is lost"), (lambda r: [f._replace(word="") for f in r if f.how != "other"], "odd|lost"),
    (lambda r: [f._replace(fill=np.nan) for f in r], "missing"), (lambda r: [*r, r[0]], "one name")])
def test_law_learnt_catches(spoil, message):
    def learn(numbers, words):
        recipe, skipped = learn_recipe(numbers, words, ["history"])
        return spoil(recipe), skipped
    with pytest.raises(AssertionError, match=message): law_learnt(*cells(0), learn)


def test_a_gap_that_benign_records_do_not_have_is_counted():
    numbers, words = cells(0)
    recipe, _ = learn_recipe(numbers, words, ["history"])
    place = [feature.name for feature in recipe].index("missing cells")
    row = {"packets": 1.0, "bytes": 2.0, "duration": 3.0, "rate": 4.0, "rare": 5.0}
    odd = lambda **gone: make(recipe, pd.DataFrame([row | gone]), words.iloc[[0]])[0, place]
    assert [odd(), odd(packets=np.nan), odd(duration=np.nan), odd(duration=np.nan, rate=np.nan), odd(bytes=np.inf)] == [0, 1, 1, 0, 0]


def test_columns_without_values_have_no_features():
    numbers = pd.DataFrame({"empty": [np.nan] * 200, "once": [1.0, *[np.inf] * 199], "x": np.arange(200.0)})
    recipe, skipped = learn_recipe(numbers, pd.DataFrame(index=numbers.index))
    assert skipped == {"empty": "empty", "once": "mostly empty"} and [f.name for f in recipe] == ["x", "missing cells"]


def test_frequent_words_have_features_and_the_others_share_one():
    words = pd.DataFrame({"w": [f"word{i}" for i in range(40)] + ["often"] * 50 + ["-"] * 10})
    recipe, _ = learn_recipe(pd.DataFrame(index=words.index), words)
    assert [f.name for f in recipe] == ["w is often", "w is missing", "w is other"]
    X = make_numbers(recipe, {}, {"w": words["w"]})
    assert (X.sum(axis=1) == 1).all(), "each record has exactly one word"
    lines = pd.DataFrame({"w": ["a\nb", "a", "c"] * 5})
    recipe, _ = learn_recipe(pd.DataFrame(index=lines.index), lines)
    assert (make_numbers(recipe, {}, {"w": lines["w"]}).sum(axis=1) == 1).all(), "a word of two lines"
    many = pd.DataFrame({"w": [f"word{i % 30}" for i in range(3000)]})
    assert len(learn_recipe(pd.DataFrame(index=many.index), many)[0]) == 13


def test_names_of_words_cannot_be_mistaken():
    words = pd.DataFrame({"w": ["", "missing", "other", "a,b", "a;b"] * 9})
    names = [f.name for f in learn_recipe(pd.DataFrame(index=words.index), words)[0]]
    assert len(set(names)) == len(names) and not any("," in name for name in names)


def test_letters_count_with_their_case():
    words = pd.DataFrame({"history": ["ShADad", "SS", "^d", "-"] * 10})
    recipe, _ = learn_recipe(pd.DataFrame(index=words.index), words, ["history"])
    X = pd.DataFrame(make_numbers(recipe, {}, {"history": words["history"]}), columns=[f.name for f in recipe])
    assert X["S in history"].tolist()[:4] == [1, 2, 0, 0] and X["d in history"].tolist()[:4] == [1, 0, 1, 0] and "- in history" not in X


# ---------------------------------------------------------------- choice and needs

def test_chosen_features():
    recipe = recipe_of()
    names = lambda *chosen: [feature.name for feature in chosen_features(recipe, chosen)]
    assert names("packets") == ["packets", "missing cells"]
    assert names("duration", "packets") == ["duration", "duration is missing", "packets", "missing cells"]
    assert names("proto") == [f.name for f in recipe if f.column == "proto"] and "missing cells" not in names("proto")
    assert names("proto is tcp", "missing cells") == ["proto is tcp", "missing cells"] and names("nobody") == []


def law_needs(recipe, numbers, words, needs=needed_columns):
    "The columns that are named are enough, and none is too many."
    as_numbers, as_text = needs(recipe)
    X = make(recipe, numbers, words)
    try: assert np.array_equal(make(recipe, numbers[as_numbers], words[as_text]), X, equal_nan=True), "not enough"
    except KeyError as error: raise AssertionError("not enough") from error
    used = {f.column for f in recipe} | {f.word for f in recipe if f.how == "number"} - {""}
    assert {*as_numbers, *as_text} <= used and len({*as_numbers, *as_text}) == len(as_numbers) + len(as_text), "too many"


@pytest.mark.parametrize("chosen", [["packets"], ["rate"], ["rate", "duration"], ["proto is tcp"], ["history"], ["duration is missing"], ["bytes", "proto"]])
def test_law_needs(chosen):
    law_needs(chosen_features(recipe_of(), chosen), *odd_cells(2))
    law_needs(recipe_of(), *odd_cells(2))


def test_law_needs_catches():
    for spoil, message in ((lambda n, t: (n[1:], t), "not enough"), (lambda n, t: (n, t[1:]), "not enough"), (lambda n, t: ([*n, "rare"], t), "too many")):
        with pytest.raises(AssertionError, match=message):
            law_needs(recipe_of(), *odd_cells(2), needs=lambda recipe: spoil(*needed_columns(recipe)))


def test_plain():
    assert is_plain(plain_recipe(["a", "b"])) and not is_plain(recipe_of()) and is_plain([])
    assert not is_plain([Feature("a", "b")]) and not is_plain([Feature("a", "a", fill=1.0)])


# ---------------------------------------------------------------- the stored state

def law_round_trip(recipe, store=recipe_to_plain):
    "A recipe that went through JSON is the same."
    names = [feature.name for feature in recipe]
    again = recipe_from_plain(json.loads(json.dumps(store(recipe), allow_nan=False)), names)
    assert repr(again) == repr(recipe), "another recipe"


@pytest.mark.parametrize("seed", range(4))
def test_law_round_trip(seed):
    law_round_trip(recipe_of(seed))
    law_round_trip(plain_recipe(["a", "b"]))


def test_law_round_trip_catches():
    with pytest.raises(AssertionError, match="another recipe"): law_round_trip(recipe_of(), lambda r: recipe_to_plain([f._replace(column="x") for f in r]))


def tampered():
    "States that no model may bring."
    good = recipe_to_plain(recipe_of())
    yield None
    yield {}
    yield good[1:]
    yield [*good, good[0]]
    yield good[::-1]
    for place, value in [(0, 1), (0, "x"), (1, None), (2, "eval"), (2, "Number"), (3, 5), (4, "1"), (4, float("inf")), (4, float("nan")), (4, [1])]:
        state = copy.deepcopy(good)
        state[0][place] = value
        yield state
    for row in ([], good[0][:4], [*good[0], 1], "number", dict(enumerate(good[0]))):
        state = copy.deepcopy(good)
        state[0] = row
        yield state


@pytest.mark.parametrize("state", list(tampered()))
def test_tampered_states_are_refused(state):
    names = [feature.name for feature in recipe_of()]
    with pytest.raises(ValueError, match="the recipe of a model must hold"): recipe_from_plain(state, names)


@pytest.mark.parametrize("how", ["number", "missing", "word", "other", "letter"])
def test_a_feature_of_no_column_is_an_error_in_words(how):
    recipe = recipe_from_plain([["a", "", how, "[\"x\"]", None], ["b", "b", "number", "", None]], ["a", "b"])
    with pytest.raises(KeyError, match="1 columns are missing"): frame_numbers(pd.DataFrame({"b": [1.0], "c": [2.0]}), recipe)


def test_every_how_is_in_use(): assert {feature.how for feature in recipe_of()} == set(HOWS)
