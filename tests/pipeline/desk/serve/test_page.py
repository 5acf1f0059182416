"""The page of `mvemo serve` in a real browser, with made predictions."""

import os
import re
import shutil
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from page_samples import CLASSES, PageServer
from server_samples import TOKEN, Server, write_songs

from mvemo.manifests.errors import DiskFailed

# Without windows, Chromium takes half of the processor time.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
PACKAGES = ("playwright", "axe_playwright_python", "starlette", "uvicorn")
MISSING = [name for name in PACKAGES if find_spec(name) is None] + ["chromium"] * (not BROWSER)
OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
    *("--disable-component-update", "--disable-sync"),
    "--autoplay-policy=no-user-gesture-required",
]

pytestmark = pytest.mark.skipif(
    bool(MISSING) and os.environ.get("CI") != "true", reason=f"not installed: {MISSING}"
)
# Milliseconds that Playwright waits, as long as other work may slow the browser down.
PATIENCE = 300_000


@pytest.fixture(scope="module")
def browser():
    assert not MISSING, f"not installed: {MISSING}"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=OPTIONS)
        yield opened
        opened.close()


@pytest.fixture
def server(tmp_path, monkeypatch):
    started = PageServer(tmp_path, monkeypatch)
    yield started
    started.kill()


@pytest.fixture
def open_page(browser, server):
    """Return a function that opens the page; errors of its scripts fail the test."""
    contexts, errors = [], []

    def opened(width=1280, height=800, address=server.url, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(address)
        page.wait_for_selector(".clip")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def page(open_page):
    return open_page()


def chosen(page):
    return page.locator("#clip h2").inner_text()


def wait_for(check):
    """Wait until `check` returns True; other work may slow the browser down, so for minutes."""
    for _ in range(6000):
        if check():
            return
        time.sleep(0.05)
    raise AssertionError("nothing happened")


def wait_for_media(page, condition):
    """Wait until the player meets a condition such as ``duration > 3``."""
    wait_for(lambda: page.evaluate(f"document.querySelector('#media').{condition}"))


def test_rows_that_do_not_change_stay_so_that_no_click_is_lost(page):
    row = page.locator(".clip").nth(1).element_handle()
    page.evaluate("document.querySelector('#count').firstChild.remove()")
    page.set_viewport_size({"width": 1200, "height": 700})
    wait_for(lambda: "clips" in page.locator("#count").inner_text())  # the list was drawn again
    assert row.evaluate("row => row.isConnected")


def test_play_and_seek(page):
    page.get_by_text("Song 3", exact=True).dblclick()
    wait_for_media(page, "currentTime > 0.2")
    page.keyboard.press("e")
    page.wait_for_selector(".followed")
    assert page.locator("#marks b").all_inner_texts() == ["Calm", "Sad"]
    page.keyboard.press(" ")
    with page.expect_response(lambda response: "/media/" in response.url) as answered:
        page.reload()
        page.wait_for_selector(".clip")
        page.locator(".clip").first.click()
    assert answered.value.status == 206
    wait_for_media(page, "duration > 3")
    box = page.locator("#track").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 20)
    wait_for_media(page, "currentTime.toFixed(1) === '2.0'")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("t")
    wait_for_media(page, "currentTime === 2")
    page.wait_for_selector("#message:text('Largest turn at 0:02: Calm 80 % to Sad 80 %')")
    page.keyboard.press("w")
    page.wait_for_selector("text=The sound at 0:01 decided.")
    page.wait_for_selector("#reason .chip:text('0:01 sound, evidence 0.27')")


def test_similar_clips_are_listed_in_their_order_and_filtered_by_mood(page):
    page.get_by_text("Song 4", exact=True).click()
    page.keyboard.press("s")
    page.wait_for_selector("#count:has-text('similar to Song 4')")
    titles = page.locator(".clip b")
    assert titles.all_inner_texts() == ["Song 4", "Song 7", "Song 3", "Song 5"]
    page.get_by_role("group", name="Filter by mood").get_by_text("Lively").click()
    wait_for(lambda: titles.all_inner_texts() == ["Song 4", "Song 7"])
    page.get_by_role("button", name="Stop showing only").click()
    wait_for(lambda: len(titles.all_inner_texts()) > 2)
    assert page.locator("#sort").input_value() == "worth"


def test_dropped_files_are_predicted_and_errors_shown(page, server):
    sound = (server.folder / "song.wav").read_bytes()
    page.evaluate(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "fresh.wav"));
            data.items.add(new File(["words"], "words.txt"));
            for (const name of ["dragover", "drop"]) {
              const options = { dataTransfer: data, bubbles: true, cancelable: true };
              document.body.dispatchEvent(new DragEvent(name, options));
            }
        }""",
        list(sound[:4000]),
    )
    page.wait_for_selector("#message:text('words.txt: expected the name of a sound or video file')")
    page.locator("#search").fill("fresh")
    page.wait_for_selector(".clip b:text('fresh')")
    page.get_by_role("button", name="Jobs").click()
    assert "words.txt" in page.locator("#jobs").inner_text()


def test_keyboard_corrects_and_undoes(page, server):
    page.locator("#annotator").fill("Ana")
    page.keyboard.press("Enter")
    page.keyboard.press("Home")
    assert chosen(page) == "Song 2"  # a person is asked for, so it comes first
    page.keyboard.press("1")
    wait_for(lambda: server.corrections().get("Song 2", {}).get("label") == "Calm")
    assert server.corrections()["Song 2"]["annotator"] == "Ana"
    following = chosen(page)
    page.keyboard.press("y")
    wait_for(lambda: len(server.corrections()) == 2)
    page.keyboard.press("ArrowUp")
    assert chosen(page) == following
    page.keyboard.press("n")
    wait_for(lambda: any(said["unsure"] for said in server.corrections().values()))
    page.keyboard.press("c")
    page.keyboard.type("too short")
    page.keyboard.press("Enter")
    wait_for(lambda: any(said["comment"] for said in server.corrections().values()))
    for _ in range(4):
        page.keyboard.press("u")
    wait_for(lambda: server.corrections() == {})
    assert chosen(page) == "Song 2"


def stay(page):
    """Keep the chosen clip after a correction."""
    page.locator("#advance").uncheck()
    page.locator("#list").focus()


def mark(page):
    """Return what the list says of the chosen clip's correction."""
    return page.locator(".clip[aria-selected=true] .mark span").first.inner_text()


def test_a_comment_is_no_judgement(page, server):
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.locator(".choice[aria-pressed=true]").count() == 0
    assert page.locator(".choice.predicted").count() == 1
    page.keyboard.press("n")
    wait_for(lambda: len(server.corrections()) == 1)
    page.keyboard.press("c")
    page.keyboard.type("too short")
    page.keyboard.press("Enter")
    wait_for(lambda: [c["comment"] for c in server.corrections().values()] == ["too short"])
    (stored,) = server.corrections().values()
    assert "label" not in stored
    assert (stored["annotator"], stored["unsure"]) == ("", True)
    wait_for(lambda: mark(page) == "unsure")
    assert "corrected" not in page.locator("#count").inner_text()
    stay(page)
    page.keyboard.press("y")
    wait_for(lambda: mark(page).startswith("✓"))
    assert page.locator(".choice[aria-pressed=true]").count() == 1
    assert {"label", "comment"} <= {*next(iter(server.corrections().values()))}


def test_a_full_disk_loses_nothing_and_nothing_is_ticked(page, server, monkeypatch):
    def no_space(entries):
        raise DiskFailed("the disk is full")

    stay(page)
    with monkeypatch.context() as full:
        full.setattr(server.kept._entries, "append", no_space)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("2")
        page.wait_for_selector("#banner:has-text('kept here: the disk is full')")
        assert mark(page) == "… Lively"
        page.reload()
        page.wait_for_selector(".clip:has-text('… Lively')")
        assert server.corrections() == {}
    page.wait_for_selector(".clip:has-text('✓ Lively')")
    page.wait_for_selector("#banner", state="hidden")
    assert [said["label"] for said in server.corrections().values()] == ["Lively"]


def test_a_refused_correction_waits_for_the_person(page, server):
    server.kept.classes = CLASSES[:2]
    stay(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("3")
    page.wait_for_selector("#clip:has-text(\"Yours was not stored (Sad): unknown label 'Sad'\")")
    assert mark(page) == "not stored"
    server.kept.classes = CLASSES
    page.get_by_role("button", name="Store mine").click()
    wait_for(lambda: mark(page) == "✓ Sad")
    assert [said["label"] for said in server.corrections().values()] == ["Sad"]


def test_a_newer_correction_of_another_person_stays(page, server):
    stay(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("1")
    wait_for(lambda: mark(page) == "✓ Calm")
    (title,) = server.corrections()
    server.kill()  # this page does not see what the other one stores
    page.keyboard.press("u")
    page.wait_for_selector("#banner:has-text('does not answer')")
    ((key, stored),) = server.kept.current.items()
    server.kept.put(server.kept.path.parent / stored.path, "Sad", clip_id=key)
    server.start()
    page.wait_for_selector("#message:has-text('another correction was stored meanwhile')")
    wait_for(lambda: mark(page) == "✓ Sad")
    assert server.corrections()[title]["label"] == "Sad"


def test_another_library_on_the_same_port_gets_no_corrections_of_the_first(page, server):
    stay(page)
    page.keyboard.press("ArrowDown")
    server.kill()
    page.keyboard.press("3")
    page.wait_for_selector("#banner:has-text('does not answer')")
    name = server.kept.path.with_name("library-id")
    first = name.read_text(encoding="utf-8")
    name.write_text("another", encoding="utf-8")
    server.start()
    page.wait_for_selector("#banner", state="hidden")
    page.wait_for_selector(".clip")
    time.sleep(4)  # longer than the time between two attempts
    assert server.corrections() == {}
    server.kill()
    name.write_text(first, encoding="utf-8")
    server.start()
    wait_for(lambda: [said["label"] for said in server.corrections().values()] == ["Sad"])


def test_learn_and_use_the_model(page):
    page.keyboard.press("ArrowDown")
    page.keyboard.press("2")
    page.get_by_role("button", name="Learn", exact=True).first.click()
    page.locator("#learn-name").fill("mine")
    page.locator("#learn-button").click()
    page.wait_for_selector("text=There are not enough corrections to say.")
    assert page.locator("#learn td").all_inner_texts() == ["0.500", "0.750"]
    page.get_by_role("button", name="Use mine").click()
    wait_for(lambda: page.evaluate("document.querySelector('#model').value === 'mine'"))


def test_rectangle_on_the_map_becomes_a_playlist(page):
    box = page.locator("#dots").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 5, box["y"] + box["height"] - 5, steps=4)
    page.mouse.up()
    assert page.locator("dialog[open]").count() == 0  # nobody asked for one
    page.get_by_role("button", name="Make playlist").click()
    assert "6 from the map" in page.locator("#playlist-text").inner_text()
    page.locator("#playlist-name").fill("Evening")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save").click()
    assert saved.value.suggested_filename == "Evening.m3u8"
    lines = Path(saved.value.path()).read_text(encoding="utf-8").splitlines()
    listed = [Path(line).stem for line in lines if not line.startswith("#")]
    assert sorted(listed) == [f"{i}" for i in range(6)]


def test_keyboard_alone_draws_a_rectangle_and_reads_help(page):
    page.keyboard.press("?")
    page.wait_for_selector("#help-dialog[open]")
    page.keyboard.press("Escape")
    page.keyboard.press("m")
    for _ in range(8):
        page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Shift+ArrowDown")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("Enter")
    assert "from the map" in page.locator("#count").inner_text()
    page.keyboard.press("/")
    page.keyboard.type("song 7")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")


def test_search_finds_titles_without_their_accents(page):
    for searched, titles in (
        ("bjork", ["Jóga", "Jóga"]),
        ("JOGA BJÖRK", ["Jóga", "Jóga"]),
        ("laka", ["Łąka"]),
        ("strasse", ["Straße"]),
        ("oresund", ["Øresund"]),
        ("ØRESUND", ["Øresund"]),
        ("caesar", ["Cæsar’s"]),
        ("caesar's", ["Cæsar’s"]),
        ("jøga", ["Jóga", "Jóga"]),
        ("joga nobody", []),
    ):
        page.locator("#search").fill(searched)
        assert page.locator(".clip b").all_inner_texts() == titles, searched


def test_sort_by_title_where_one_looks_for_a_song(page):
    page.locator("#search").fill("song")
    assert page.locator("#sort").input_value() == "title"
    shown = page.locator(".clip b").all_inner_texts()
    assert shown == [f"Song {i}" for i in range(12)]  # 2 before 10
    page.locator("#search").fill("")
    title = page.locator("#columns").get_by_role("button", name="title")
    shown = page.locator(".clip b").all_inner_texts()
    assert shown[:4] == ["Cæsar’s", "Jóga", "Jóga", "Łąka"]
    assert shown[4] == "Øresund"
    assert shown[-1] == "Straße"
    title.click()
    assert page.locator(".clip b").all_inner_texts() == shown[::-1]


def test_a_copy_has_a_badge(page, server):
    copies = [str(server.folder / f"{i}.wav") for i in (13, 14)]
    page.locator("#search").fill("joga")
    assert page.locator(".badge").all_inner_texts() == ["2 copies", "2 copies"]
    assert page.locator(".badge").first.get_attribute("title") == "\n".join(copies)
    page.locator("#search").fill("")
    page.locator("#show").select_option("copies")
    assert page.locator(".clip").count() == 2


def test_a_song_is_not_blamed_for_having_no_pictures(page):
    page.get_by_text("Song 3", exact=True).click()
    assert page.locator("#clip .note").count() == 0
    page.get_by_text("Song 2", exact=True).click()
    assert page.locator("#clip .note").all_inner_texts() == ["ask a person: 3 of 3 classes"]


def test_long_work_shows_progress_and_can_be_cancelled(page, server):
    server.worker.is_slow = True
    page.get_by_text("Song 3", exact=True).click()
    page.keyboard.press("e")
    work = page.locator("#work")
    work.get_by_text("Timeline of Song 3, 1:23 left").wait_for()
    assert work.locator("progress").evaluate("bar => bar.value") == 0.42
    work.get_by_role("button", name="Cancel").click()
    work.locator("progress").wait_for(state="detached")
    page.locator("#tabs [data-view=jobs]").click()
    page.wait_for_selector("#jobs li:has-text('cancelled')")
    assert page.locator("#follow[aria-busy]").count() == 0


def test_what_is_dragged_inside_the_page_is_no_upload(page):
    title = page.locator(".clip b").first
    title.select_text()
    box = title.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 100, steps=5)
    assert page.locator("body.dropping, dialog[open]").count() == 0
    page.mouse.up()
    started = "document.body.dispatchEvent(new DragEvent('dragstart', { cancelable: true }))"
    assert page.evaluate(f"!{started.replace('cancelable', 'bubbles: true, cancelable')}")


LAYOUT = """() => {
    const box = (selector) => document.querySelector(selector).getBoundingClientRect();
    const starts = (selector) => [...document.querySelectorAll(selector)]
      .filter((each) => getComputedStyle(each).display !== "none")
      .map((each) => each.getBoundingClientRect().left);
    return {
      below: ["#choices", "#confirm", "#comment"]
        .filter((name) => box(name).bottom > box("#player").top),
      off: starts("#columns > *").map((left, i) => left - starts(".clip:first-child > span")[i]),
      cut: [...document.querySelectorAll(".mood .name, .choice > :nth-child(2), .bar *, #moods *")]
        .filter((each) => each.clientWidth && each.scrollWidth > each.clientWidth)
        .map((each) => each.textContent),
      player: box("#player").height / innerHeight,
    };
}"""


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1280, 800), (1024, 768), (390, 844)])
def test_layout(open_page, width, height):
    page = open_page(width, height)
    if width < 760:
        assert page.evaluate(LAYOUT)["player"] < 0.01  # nothing is played yet
    page.locator(".clip").first.click()
    if width < 760:
        assert page.evaluate(LAYOUT)["player"] < 0.15
        page.locator("#more").click()
        assert page.locator("#moods").is_visible()
        page.locator("#more").click()
        page.locator("#tabs [data-view=clip]").click()
    found = page.evaluate(LAYOUT)
    assert found["below"] == []
    assert found["cut"] == []
    if width > 760:
        assert max(map(abs, found["off"])) < 1


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_clips_are_shown_relative_to_the_folder(open_page, server, width, height, scheme):
    from axe_playwright_python.sync_playwright import Axe

    server.reason = "14 of 17 clips came out as Calm"
    page = open_page(width, height, color_scheme=scheme)
    offer = page.locator("#offer:has-text('14 of 17 clips came out as Calm: switch on “Relative')")
    offer.wait_for()
    row = page.locator(".clip:has-text('Song 1')").first
    assert "Lively\n69 %" in row.inner_text()
    page.get_by_label("Relative to this folder").check()
    assert not offer.is_visible()
    # The absolute value stands behind the rank.
    assert re.search(r"valence\s+0\.\d\d \(0\.\d\d\)", row.inner_text())
    assert "tense in this folder, by itself Lively" in row.inner_text()
    row.click()
    assert page.evaluate(LAYOUT)["cut"] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert Axe().run(page).response["violations"] == []
    page.locator(f"#tabs [data-view={'clip' if width < 760 else 'map'}]").click()
    assert "tense in this folder, valence 0." in page.locator("#facts").inner_text()
    assert page.evaluate(LAYOUT)["below"] == []
    page.locator("#tabs [data-view=map]").click()
    # Song 0 is first of 11 on the map, wherever its place of 0.1 lies.
    box = page.locator("#dots").bounding_box()
    x = box["x"] + 22 + (box["width"] - 44) * 0.5 / 11
    page.mouse.move(x, box["y"] + box["height"] / 2)
    tip = page.locator("#tip").inner_text()
    assert re.search(r"Song 0 – .*; valence 0\.10, arousal 0\.50", tip)


def test_confusion_lists_its_clips(page):
    page.get_by_role("button", name="Report").click()
    page.get_by_role("button", name="true Calm, predicted Lively: 1").click()
    assert page.locator(".clip b").all_inner_texts() == ["Song 4"]
    page.get_by_role("button", name="Stop showing only").click()
    page.get_by_role("button", name="List the hard clips").click()
    assert page.locator(".clip b").all_inner_texts() == ["Song 5"]


def test_the_real_server_from_prediction_to_a_learned_model(open_page, model, tmp_path):
    server = Server(model, write_songs(tmp_path / "real" / "songs", seconds=30))
    page = open_page(address=f"{server.url}?token={TOKEN}")
    page.wait_for_selector("text=4 of 4 clips")
    server.clips()
    page.wait_for_selector(".clip:has-text('cannot be read')")
    # The list is drawn again whenever a clip changes, and a click on a row that goes is lost.
    chosen = page.locator(".clip[aria-selected=true]:has-text('song1')")
    wait_for(lambda: page.get_by_text("song1", exact=True).click() or chosen.count())
    page.keyboard.press(" ")
    wait_for_media(page, "currentTime > 0.2")
    page.keyboard.press("e")
    page.wait_for_selector(".followed")
    page.keyboard.press("w")
    page.wait_for_selector("text=strongest evidence")
    page.keyboard.press("1")
    wait_for(lambda: len(server.get("corrections").json()["corrections"]) == 1)
    port = server.url.rstrip("/").rpartition(":")[2]
    server.end(signal.SIGKILL)
    page.keyboard.press("2")
    page.wait_for_selector("#banner:has-text('does not answer')")
    page.keyboard.press("3")
    server = Server(model, server.folder, port=int(port))
    wait_for(lambda: len(server.get("corrections").json()["corrections"]) == 3)
    page.wait_for_selector("#banner", state="hidden")
    page.get_by_role("button", name="Learn", exact=True).first.click()
    page.locator("#learn-button").click()
    page.get_by_role("button", name="Use mine").click()
    wait_for(lambda: page.evaluate("document.querySelector('#model').value === 'mine'"))
    server.clips()
    shutil.copy(server.folder / "song0.wav", server.folder / "later.wav")
    page.locator("#rescan").click()
    page.wait_for_selector("#message:text('1 clip to predict')")
    page.wait_for_selector(".clip b:text('later')")
    song = (server.folder / "song0.wav").read_bytes()
    page.set_input_files("#files", {"name": "new.wav", "mimeType": "audio/wav", "buffer": song})
    page.wait_for_selector(".clip b:text('new')")
    assert {"new.wav", "song0.wav"} <= {*server.clips()}
    assert server.end() == 143


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(open_page, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(width, color_scheme=scheme)
    page.locator(".clip").first.click()
    page.keyboard.press("e")
    page.wait_for_selector(".followed")
    views = ("map", "learn", "report", "jobs")
    for view in views if width > 760 else (*views, "clip", "library"):
        page.locator(f"#tabs [data-view={view}]").click()
        if view == "library":
            page.locator("#more").click()
        found = Axe().run(page).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in found] == [], view
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_examples_of_the_page_of_documentation(server):
    text = (Path(__file__).parents[4] / "docs" / "serve.md").read_text(encoding="utf-8")
    lines = re.findall(r"^curl .*", text, re.M)
    url, clip_id = server.url.partition("/?")[0], server.library.ids()[3]
    known = {"TOKEN": TOKEN, "URL": url, "ID": clip_id}
    assert len(lines) == 6
    for line in lines:
        command = line.replace("curl", "curl --fail --silent --show-error", 1)
        options = {"shell": True, "cwd": server.folder, "env": {**os.environ, **known}}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)
    stored = server.corrections()["Song 3"]
    assert (stored["label"], stored["annotator"]) == ("Sad", "Ana")
    assert (server.folder / "start.wav").stat().st_size == 1000
