"""The page of `nfad triage` in a browser: keys, filters, two windows, ten thousand alerts, hostile names, who may ask."""
import shutil
import time

import pytest

from conftest import HOSTILE, alerts_table
from nfad.answers import read_verdicts
from nfad.outputs import write_table
from nfad.server import served
from nfad.widget import open_desk

ROW = ".row[aria-selected=true]"


@pytest.fixture
def desk(alerts):
    "Serves a list; gives its address and its file of verdicts."
    opened = []

    def serve(learn=None, **about):
        made = open_desk(alerts(**about), who="anna")
        made.learn = learn
        context = served(made)
        opened.append(context)
        return context.__enter__(), made.file
    yield serve
    for context in opened: context.__exit__(None, None, None)


def press(page, *keys):
    for key in keys: page.keyboard.press(key)


def said(page, text): page.wait_for_function("text => document.querySelector('footer .status').textContent.startsWith(text)", arg=text)


def counted(path) -> list[tuple[str, int]]:
    "Answers that count, and their number."
    current = [verdict.verdict for verdict in read_verdicts(path).current() if verdict.note != "taken back"]
    return sorted({word: current.count(word) for word in current}.items())


def test_read_and_answer_by_keys(desk, visit):
    url, file = desk()
    page = visit(url, ".card h2")
    assert page.locator(".card h2").inner_text().startswith("Incident 1: 5 records") and "Flow IAT Max = 1 s" in page.locator(".card .first").inner_text()
    page.locator(".row").nth(2).click()
    page.wait_for_selector("text=Incident 3: 5 records")
    page.locator(".list").focus()
    press(page, "a")
    said(page, "attack: incident 3")
    assert counted(file) == [("attack", 5)] and page.locator(ROW).inner_text().startswith("4")
    press(page, "k", "k", "n")
    page.keyboard.type("a backup, j k a b u z")
    press(page, "Escape", "b")
    said(page, "benign: incident 2")
    assert counted(file) == [("attack", 5), ("benign", 5)] and read_verdicts(file).every[-1].note == "a backup, j k a b u z"
    press(page, "z")
    said(page, "taken back: benign")
    assert counted(file) == [("attack", 5)]
    page.reload()
    page.wait_for_selector(".card h2")
    assert page.locator(".counts").inner_text() == "5 of 60 answered" and page.locator(".row").nth(2).inner_text().endswith("attack")


def test_one_alert_of_an_incident(desk, visit):
    url, file = desk()
    page = visit(url, ".card h2")
    page.locator(".list").focus()
    press(page, "o")
    assert page.locator(".row").count() == 5
    press(page, "u")
    said(page, "unsure: rank 1")
    press(page, "Escape")
    assert counted(file) == [("unsure", 1)] and page.locator(".row").first.inner_text().endswith("mixed")


def test_filters(desk, visit):
    url, _ = desk()
    page = visit(url, ".card h2")
    n = lambda: page.locator(".list").evaluate("list => list.querySelectorAll('.row').length")
    page.get_by_label("reason").select_option("packet counts")
    assert n() == 6
    page.get_by_label("search").fill("packets 12")
    assert n() == 1
    page.get_by_label("search").fill("nobody")
    assert n() == 0 and page.locator(".card").inner_text() == "Nothing passes these filters."
    page.get_by_label("search").fill("")
    page.get_by_label("reason").select_option("")
    page.get_by_label("to", exact=True).fill("2026-11-28T00:03:00")
    page.get_by_label("to", exact=True).dispatch_event("change")
    assert n() == 3
    page.get_by_label("host").fill("10.0.0.99")
    assert n() == 0


def test_ten_thousand_alerts_draw_a_screenful(desk, visit):
    url, _ = desk(n=10_000, n_incidents=10_000)
    page = visit(url, ".card h2")
    rows = lambda: page.locator(".row").count()
    assert rows() < 40
    seconds = page.evaluate("""() => { const list = document.querySelector('.list'), begin = performance.now();
        for (let i = 0; i < 100; i++) { list.scrollTop = i * 5000; list.dispatchEvent(new Event('scroll')); list.querySelector('.row').getBoundingClientRect(); }
        return (performance.now() - begin) / 1000; }""")
    assert rows() < 40 and seconds < 10  # a hundred screens; without a virtual list, one takes longer
    page.locator(".list").focus()
    press(page, "End")
    page.wait_for_selector("text=Alert 10000")
    page.get_by_label("search").fill("#9999")
    assert rows() == 1


def test_two_windows_and_the_terminal(desk, visit, alerts):
    url, file = desk()
    one, other = visit(url, ".card h2"), visit(url, ".card h2")
    one.locator(".list").focus()
    press(one, "a")
    said(one, "attack")
    other.evaluate("window.dispatchEvent(new Event('focus'))")
    other.wait_for_function("() => document.querySelector('.counts').textContent === '5 of 60 answered'")
    write_table(alerts_table(20, 2), file.parent / "alerts.parquet", "alerts", model="m2")
    other.evaluate("window.dispatchEvent(new Event('focus'))")
    other.wait_for_selector("text=The list on disk is another now")
    assert {verdict.model for verdict in read_verdicts(file).every} == {"m1"}


def test_learning_shows_what_is_gone(desk, visit):
    url, _ = desk(learn=lambda: {"text": "an account\n<b>of two lines</b>", "gone": [True] * 5 + [False] * 55})
    page = visit(url, ".card h2")
    page.get_by_role("button", name="Learn").click()
    page.wait_for_selector("text=5 of 60 listed alerts would be none")
    assert page.locator(".account").inner_text().endswith("an account\n\n<b>of two lines</b>") and page.locator(".row").first.inner_text().endswith("gone")
    page.get_by_label("answer", exact=True).select_option("gone")
    assert page.locator(".row").count() == 1


def test_hostile_names_are_text(desk, visit):
    url, _ = desk(hosts=HOSTILE)
    page = visit(url, ".card h2")
    page.get_by_role("button", name="showing incidents").click()
    shown = page.locator(".desk").inner_text()
    assert "<img src=x" in shown and page.locator(".nfad-triage img, .nfad-triage script, .nfad-triage svg").count() == 0
    assert "\u202e" not in shown and "\x1b" not in shown


def test_a_wrong_note_and_a_server_that_is_gone(desk, visit):
    url, file = desk()
    page = visit(url, ".card h2")
    shutil.rmtree(file.parent)
    file.parent.touch()  # a file where the folder was
    page.locator(".list").focus()
    press(page, "a")
    page.wait_for_selector(".status.wrong")
    assert page.locator(".counts").inner_text() == "0 of 60 answered"


def test_no_alerts(desk, visit):
    url, _ = desk(n=0, n_incidents=0)
    page = visit(url, ".card")
    page.wait_for_selector("text=This list has no alerts.")
    press(page, "a", "j", "o", "z")


def test_only_the_page_itself_may_ask(desk, visit, tmp_path):
    "Another site in the same browser can neither read the page nor write an answer, even if it knew the token."
    url, file = desk()
    ask = f"{url}ask"
    with served(open_desk(file.parent, who="eve")) as other:  # a page of another origin
        page = visit(other, ".card h2")
        failed = page.evaluate("""async (ask) => { const say = JSON.stringify({ask: 'say', rank: 1, verdict: 'benign'});
            const tried = [{}, {headers: {'Content-Type': 'application/json'}}, {mode: 'no-cors', headers: {'Content-Type': 'text/plain'}}];
            const done = await Promise.allSettled(tried.map((about) => fetch(ask, {method: 'POST', body: say, ...about}).then((reply) => reply.text())));
            return done.map((one) => one.status); }""", ask)
        assert failed == ["rejected"] * 3 and not file.exists()
        form = visit("about:blank")  # a page without a policy sends a form
        form.set_content(f"<form method=post enctype=text/plain action='{ask}'><input name='{{\"ask\":\"say\",\"rank\":1,\"verdict\":\"benign\",\"x\":\"' value='\"}}'></form>")
        form.evaluate("document.querySelector('form').submit()")
        form.wait_for_url("**/ask")
        assert form.inner_text("body").strip() == "403" and not file.exists()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 420])
def test_nothing_serious_for_axe(desk, visit, axe, scheme, width):
    page = visit(desk()[0], ".card h2", color_scheme=scheme, viewport={"width": width, "height": 820})
    page.locator(".list").focus()
    press(page, "a", "b", "u")
    said(page, "unsure")
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_axe_finds_faults(visit, axe):
    page = visit("about:blank")
    page.set_content("<html><body><img src='data:,'><p style='color:#ccc'>pale</p></body></html>")
    assert {fault.partition(":")[0] for fault in axe(page)} >= {"image-alt", "color-contrast", "html-has-lang"}


def test_a_page_that_asks_elsewhere_is_noticed(chromium):
    page = chromium.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_content("<img src='http://192.0.2.1/x.png'>")
    time.sleep(0.2)
    page.close()
    assert asked == ["http://192.0.2.1/x.png"]
