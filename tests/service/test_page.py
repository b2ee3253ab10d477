# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import csv
import json
import re
import shutil
import sqlite3
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request
from dataclasses import replace
from io import BytesIO, StringIO
from pathlib import Path

from PIL import Image

from bundle.lists.boxes import read_coco_boxes
from bundle.service.__main__ import main
from bundle.service.intake import Intake
from bundle.service.job_queue import JobQueue
from bundle.service.page import make_page, page_address, serve_page
from bundle.service.settings import Page
from bundle.service.worker import Worker
from tests.service.helpers import image_file, quiet_workflow, small_adfa, small_msa, some_settings
from tests.service.orthanc import free_port

try:
    from selenium import webdriver as selenium
    from selenium.common.exceptions import StaleElementReferenceException
except ImportError:
    selenium = None

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")


class WithStudies(unittest.TestCase):
    """One study is answered, one is parked, one has just come."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name)
        cls.settings = some_settings(cls.root / "state", page=Page(feedback=True))
        cls.settings.state_dir.mkdir()
        cls.queue = JobQueue(cls.settings.state_dir / "queue.sqlite")
        cls.addClassCleanup(cls.queue.close)
        intake = Intake(cls.settings, cls.queue)
        intake.take(image_file(cls.root / "in", 0), "CR1")
        intake.take(image_file(cls.root / "in", 1, BitsStored=99), "<b>CR2")
        with contextlib.ExitStack() as models:
            made = [small_adfa(cls.root / "adfa"), small_msa(cls.root / "msa")]
            loaded = [models.enter_context(quiet_workflow(m, cls.root / "scratch")) for m in made]
            worker = Worker(cls.settings, cls.queue, loaded)
            while worker.step():
                pass
        intake.take(image_file(cls.root / "in", 2), "CR1")


class TestPage(WithStudies):
    def setUp(self):
        shutil.rmtree(self.settings.state_dir / "feedback", ignore_errors=True)
        self.opening = "/" + page_address(self.settings).rpartition("/")[2]
        self.client = make_page(self.settings, self.queue).test_client()
        self.assertEqual(self.client.get(self.opening).status_code, 302)

    def text(self, path: str) -> str:
        answer = self.client.get(path)
        self.assertEqual(answer.status_code, 200, path)
        return answer.text

    def file(self, key: str = "msa/000000", **form) -> int:
        token = re.search('name="token" value="([0-9a-f]+)"', self.text("/jobs/1"))[1]
        return self.client.post(f"/jobs/1/{key}/feedback", data={"token": token, **form}).status_code

    def test_worklist(self):
        page = self.text("/")
        for words in ("sending", "parked", "waiting", "CR1", "BitsStored within it", "&lt;b&gt;CR2"):
            self.assertIn(words, page)
        for uid in self.queue.rows("SELECT uid, study FROM instances JOIN jobs ON jobs.id = job"):
            self.assertNotIn(uid["uid"], page)
            self.assertNotIn(uid["study"], page)
        self.assertNotIn("CR1", self.text("/?state=parked"))
        self.assertNotIn("<b>CR2", page)
        for query in ("state=lost", "before=x", "before=", "before=-1", "before=99999999999999999999"):
            self.assertEqual(self.client.get(f"/?{query}").status_code, 400, query)
        self.assertIn("No study", self.text("/?before=1"))

    def test_a_study_its_pictures_and_its_report(self):
        page = self.text("/jobs/1")
        self.assertIn("flagged abnormal", page)
        self.assertNotIn("SYNTHETIC", page)
        for model in ("adfa", "msa"):
            for name in ("image", "overlay"):
                picture = Image.open(BytesIO(self.client.get(f"/jobs/1/{model}/000000/{name}.png").data))
                self.assertEqual(picture.size, (40, 48))
            report = self.client.get(f"/jobs/1/{model}/report")
            self.assertIn("research use only", report.text.lower())
            self.assertIn("sandbox allow-scripts", report.headers["Content-Security-Policy"])
        self.assertIn("There is no result yet", self.text("/jobs/3"))
        self.assertIn("BitsStored", self.text("/jobs/2"))

    def test_headers(self):
        answer = self.client.get("/jobs/1")
        self.assertTrue(answer.headers["Content-Security-Policy"].startswith("default-src 'none'"))
        self.assertNotIn("unsafe", answer.headers["Content-Security-Policy"])
        self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
        self.assertEqual(answer.headers["Cache-Control"], "no-store")
        self.assertNotRegex(answer.text, r"<script>|style=|onclick")

    def test_nobody_without_the_key_and_no_other_host(self):
        stranger = self.client.application.test_client(use_cookies=False)
        for path in ("/", "/jobs/1", "/jobs/1/adfa/report", "/?key=wrong", "/nothing"):
            self.assertEqual(stranger.get(path).status_code, 403, path)
        self.assertEqual(stranger.post("/jobs/1/adfa/000000/feedback").status_code, 403)
        key = self.opening.rpartition("=")[2]
        for name in ("bundle_page", "bundle_page_8090"):  # the key itself is no session
            self.assertEqual(stranger.get("/", headers={"Cookie": f"{name}={key}"}).status_code, 403)
        session = self.client.get_cookie("bundle_page_8090").value
        self.assertNotIn(session, self.opening)
        cookie = f"bundle_page_8090={session}"
        self.assertEqual(stranger.get("/", headers={"Cookie": cookie}).status_code, 200)
        other = cookie.replace("8090", "8091")  # of another page of this machine
        self.assertEqual(stranger.get("/", headers={"Cookie": other}).status_code, 403)
        headers = {"Cookie": cookie, "Host": "elsewhere.example"}
        self.assertEqual(stranger.get("/", headers=headers).status_code, 400)
        self.assertEqual((self.settings.state_dir / "secret").stat().st_mode & 0o077, 0)
        self.assertIn("samesite=strict", str(stranger.get(self.opening).headers["Set-Cookie"]).lower())

    def test_no_way_out_of_the_folders(self):
        for path in (
            "/jobs/9",
            "/jobs/99999999999999999999",
            "/jobs/1/nothing/report",
            "/jobs/1/../report",
            "/jobs/1/%2e%2e/report",
            "/jobs/1/..%2f..%2f1%2fadfa/report",
            "/jobs/1/adfa/..%2f000000/overlay.png",
            "/jobs/1/adfa/000001/image.png",
            "/page_files/../page.py",
            "/page_files/%2e%2e/page.py",
        ):
            self.assertEqual(self.client.get(path).status_code, 404, path)

    def test_feedback(self):
        box = {"label": "Effusion", "x": 3, "y": 4, "width": 20, "height": 10}
        self.assertEqual(self.file(verdict="disagree", finding="Mass", boxes=json.dumps([box])), 303)
        self.assertEqual(self.file("adfa/000000", verdict="agree"), 303)
        page = self.text("/jobs/1")
        self.assertIn("A reader said <b>disagree</b>: Effusion, Mass, 1 box.", page)
        self.assertIn("A reader said <b>agree</b>: abnormal.", page)
        with (self.settings.state_dir / "feedback" / "msa.csv").open(newline="") as file:
            (row,) = csv.DictReader(file)
        self.assertEqual((row["Effusion"], row["Mass"]), ("1", "1"))

    def test_each_reader_has_a_key(self):
        settings = replace(self.settings, page=Page(feedback=True, readers=("Ada", "Bo")))
        client = make_page(settings, self.queue).test_client()
        self.assertEqual(client.get(self.opening).status_code, 403)  # nobody's
        for reader in ("Ada", "Bo"):
            opening = "/" + page_address(settings, reader).rpartition("/")[2]
            self.assertEqual(client.get(opening).status_code, 302)
        token = re.search('name="token" value="([0-9a-f]+)"', client.get("/jobs/1").text)[1]
        form = {"token": token, "verdict": "agree"}
        self.assertEqual(client.post("/jobs/1/adfa/000000/feedback", data=form).status_code, 303)
        with contextlib.closing(sqlite3.connect(self.settings.state_dir / "feedback" / "feedback.sqlite")) as db:
            self.assertEqual(db.execute("SELECT reader FROM feedback").fetchall(), [("Bo",)])
        lines = (self.settings.state_dir / "audit" / "page.jsonl").read_text().splitlines()
        (said,) = [line for line in map(json.loads, lines) if line["event"] == "feedback"]
        self.assertEqual((said["reader"], said["job"], said["verdict"]), ("Bo", 1, "agree"))

    def test_damaged_results_do_not_hide_the_others(self):
        file = self.settings.state_dir / "jobs" / "1" / "adfa" / "predictions.json"
        whole = file.read_bytes()
        self.addCleanup(file.write_bytes, whole)
        for damaged in (b"", b"[", b"{}", b"\xff"):
            file.write_bytes(damaged)
            self.assertIn("msa", self.text("/jobs/1"))

    def test_feedback_that_is_refused(self):
        for form in ({"verdict": "x"}, {"verdict": "disagree", "boxes": "{}"}, {"verdict": "disagree", "boxes": "[["}):
            self.assertEqual(self.file(**form), 400)
        self.assertEqual(self.file("adfa/7", verdict="agree"), 404)
        self.assertEqual(self.file(verdict="agree", token="0" * 64), 403)
        self.assertEqual(self.client.post("/jobs/1/adfa/000000/feedback", data={"verdict": "agree"}).status_code, 403)
        self.assertEqual(self.file(verdict="agree", boxes="9" * 2**18), 413)
        self.assertEqual(self.client.get("/jobs/1/adfa/000000/feedback").status_code, 405)

    def test_a_page_that_only_shows(self):
        client = make_page(replace(self.settings, page=Page()), self.queue).test_client()
        client.get(self.opening)
        self.assertNotIn("<form", client.get("/jobs/1").text)
        self.assertEqual(client.post("/jobs/1/adfa/000000/feedback", data={"verdict": "agree"}).status_code, 403)
        self.assertFalse((self.settings.state_dir / "feedback" / "adfa.csv").exists())

    def test_serving(self):
        settings = replace(self.settings, page=Page(port=free_port()))
        stop = threading.Event()
        thread = threading.Thread(target=serve_page, args=(settings, self.queue, stop))
        thread.start()
        self.addCleanup(thread.join, 10)
        self.addCleanup(stop.set)
        address = f"http://127.0.0.1:{settings.page.port}/"
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(address, timeout=5)
            except urllib.error.HTTPError as error:
                self.assertEqual(error.code, 403)
                self.assertNotIn("Server", error.headers)
                return
            except OSError:
                time.sleep(0.05)
        self.fail("the page does not answer")

    def test_the_command_prints_the_address(self):
        config = self.root / "service.yaml"
        config.write_text("state_dir: state\nmodels: [{name: a, args_file: a.yaml}]\npage: {}\n")
        with contextlib.redirect_stdout(StringIO()) as out:
            main(["page", "--config", str(config), "--address"])
        self.assertEqual(out.getvalue().strip(), page_address(self.settings))


@unittest.skipUnless(CHROMIUM and CHROMEDRIVER and selenium, "chromium, chromium-driver or selenium is missing")
class TestInBrowser(WithStudies):
    def setUp(self):
        settings = replace(self.settings, page=Page(port=free_port(), feedback=True))
        stop = threading.Event()
        thread = threading.Thread(target=serve_page, args=(settings, self.queue, stop))
        thread.start()
        self.addCleanup(thread.join, 10)
        self.addCleanup(stop.set)
        options = selenium.ChromeOptions()
        options.binary_location = CHROMIUM
        for word in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1280,1000"):
            options.add_argument(f"--{word}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.browser = selenium.Chrome(options, selenium.ChromeService(CHROMEDRIVER))
        self.addCleanup(self.browser.quit)
        self.browser.implicitly_wait(10)
        self.browser.get(page_address(settings))

    def find(self, selector: str):
        return self.browser.find_element("css selector", selector)

    def use(self, selector: str, how):
        """Find an element and use it, again where the worklist renewed itself in between, as it does every 3 s."""
        until = time.monotonic() + 20
        while True:
            try:
                return how(self.find(selector))
            except StaleElementReferenceException:
                self.assertLess(time.monotonic(), until)

    def click(self, selector: str) -> None:
        self.use(selector, lambda element: element.click())

    def text(self, selector: str) -> str:
        return self.use(selector, lambda element: element.text)

    def wait_for(self, condition) -> None:
        until = time.monotonic() + 10
        while not condition():
            self.assertLess(time.monotonic(), until)
            time.sleep(0.05)

    def test_from_the_worklist_to_a_report_and_a_correction(self):
        self.assertEqual(self.text("h1"), "Worklist")
        self.assertNotIn("key=", self.browser.current_url)
        self.click("a.parked")
        self.assertIn("BitsStored", self.text("tbody"))
        self.click(".tiles a")
        self.click("a[href='/jobs/1']")
        images = self.browser.find_elements("css selector", ".stage img")
        self.assertEqual(len(images), 4)
        self.wait_for(lambda: all(image.get_property("naturalWidth") == 40 for image in images))

        self.click("a[href='/jobs/1/msa/report']")
        self.click(".stages")
        self.assertTrue(self.find("dialog").get_property("open"))
        self.click("dialog button")
        self.assertFalse(self.find("dialog").get_property("open"))
        self.browser.back()

        self.click("#msa-000000 .open")
        boxes = len(self.browser.find_elements("css selector", "#msa-000000 ul.boxes li"))
        for _ in range(boxes):
            self.click("#msa-000000 ul.boxes button")
        svg = self.find("#msa-000000 svg")
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", svg)
        shape = svg.rect
        scale = min(shape["width"] / 40, shape["height"] / 48)
        drag = selenium.ActionChains(self.browser).move_to_element_with_offset(svg, -10 * scale, -10 * scale)
        drag.click_and_hold().move_by_offset(15 * scale, 20 * scale).release().perform()
        self.assertIn("Effusion: 10, 14, 15 \N{MULTIPLICATION SIGN} 20", self.text("#msa-000000 ul.boxes"))
        self.click("#msa-000000 .correction [value=disagree]")
        self.assertIn("A reader said disagree: Effusion", self.text("#msa-000000 .said"))
        self.click("#adfa-000000 [value=agree]")
        self.assertIn("A reader said agree: abnormal.", self.text("#adfa-000000 .said"))

        boxes = read_coco_boxes(self.settings.state_dir / "feedback" / "msa_boxes.json")
        (left, top, right, bottom) = next(iter(boxes.values()))["Effusion"][0].tolist()
        for found, drawn in ((left, 10), (top, 14), (right, 25), (bottom, 34)):
            self.assertAlmostEqual(found, drawn, delta=0.3)
        problems = [entry for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]
        self.assertEqual(problems, [])


if __name__ == "__main__":
    unittest.main()
