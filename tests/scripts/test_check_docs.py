# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
with mock.patch.object(sys, "path", [str(ROOT / "scripts/checks"), *sys.path]):
    import check_docs

TABLE = {"commands": [{"with": "known.py"}], "pages": {"page.md": {"commands": [{"with": "special.py"}]}}, "data": {}}
MARKER = "<!-- not run: it needs a GPU -->\n"


def fenced(*lines: str, language: str = "bash") -> str:
    return "\n".join([f"```{language}", *lines, "```", ""])


def texts(text: str) -> list[str]:
    return [
        command.text for block in check_docs.blocks_of(text, "page.md") for command in check_docs.commands_of(block)
    ]


class TestCommands(unittest.TestCase):
    def test_comments_are_no_commands_and_continued_lines_are_one(self):
        text = fenced(
            "# a comment", "", "one --flag 'a # b' x#y   # why", "two \\", "    --more \\", "    --end", "three"
        )
        self.assertEqual(texts(text), ["one --flag 'a # b' x#y", "two --more --end", "three"])

    def test_a_console_prints_what_is_no_command(self):
        self.assertEqual(texts(fenced("$ one", "what it says", "$ two", language="console")), ["one", "two"])

    def test_a_block_of_python_is_one_command_and_lines_are_those_of_the_page(self):
        (block,) = check_docs.blocks_of("text\n\n" + fenced("import a", "a.b()  # why", language="python"), "page.md")
        (command,) = check_docs.commands_of(block)
        self.assertEqual((command.text, command.line, command.python), ("import a\na.b()  # why", 4, True))

    def test_placeholders_are_whole_words_or_the_start_of_a_path(self):
        places = {"DIR": "/d", "N": "2", "labels.csv": "/l.csv"}
        self.assertEqual(
            check_docs.with_places('run DIR/labels.csv labels.csv --n=N MY_DIR x/DIR "DIR" NOT', places),
            'run /d/labels.csv /l.csv --n=2 MY_DIR x/DIR "/d" NOT',
        )


class TestProblems(unittest.TestCase):
    def problems(self, text: str) -> list[str]:
        return check_docs.problems({"page.md": text}, TABLE)

    def test_known_commands_and_marked_blocks_are_none(self):
        text = (
            fenced("python known.py", "python special.py")
            + MARKER
            + fenced("python other.py")
            + fenced("a tree", language="")
        )
        self.assertEqual(self.problems(text), [])

    def test_an_unknown_command_is_named_with_its_line(self):
        self.assertEqual(
            self.problems(fenced("python known.py", "python other.py")),
            ["page.md:3: not in check_docs.yaml: python other.py"],
        )

    def test_a_page_does_not_know_the_commands_of_another(self):
        self.assertEqual(len(check_docs.problems({"other.md": fenced("python special.py")}, TABLE)), 1)

    def test_commands_outside_of_a_fence_for_them_are_refused(self):
        for text in (
            "words\n\n    python known.py\n",
            fenced("python known.py", language=""),
            fenced("$ make x", language="text"),
        ):
            self.assertEqual(len(self.problems(text)), 1, text)

    def test_a_marker_has_a_reason_and_there_are_at_most_eight(self):
        self.assertRegex(self.problems("<!-- not run: -->\n" + fenced("x"))[0], "page.md:2: .* must say why")
        self.assertEqual(self.problems((MARKER + fenced("x")) * 8), [])
        self.assertRegex(self.problems((MARKER + fenced("x")) * 9)[0], "at most 8 blocks may not be run, got 9")


class TestPages(unittest.TestCase):
    def test_the_table_knows_every_command_of_every_page(self):
        table = check_docs.read_table()
        pages = {page: (ROOT / page).read_text() for page in check_docs.all_pages()}
        self.assertEqual(check_docs.problems(pages, table), [])

    def test_the_table_has_nothing_that_no_page_has(self):
        table = check_docs.read_table()
        for page, settings in table["pages"].items():
            text = (ROOT / page).read_text()
            for entry in settings.get("commands", []):
                self.assertIn(entry["with"], text, page)
            for word in {**settings.get("places", {}), **settings.get("file_places", {})}:
                self.assertIn(str(word), text, page)

    def test_places_of_data_are_in_the_table(self):
        table = check_docs.read_table()
        for settings in (*table["pages"].values(), *(entry or {} for entry in table["data"].values())):
            for values in (settings.get("places", {}), *(c.get("places", {}) for c in settings.get("commands", []))):
                for value in map(str, values.values()):
                    self.assertTrue(not value.startswith("data/") or value.split("/")[1] in table["data"], value)


class TestRun(unittest.TestCase):
    def said(self, text: str, program: str = "", table: dict = TABLE) -> tuple[list[str], int]:
        """Return the lines printed for a page beside ``known.py``, and the number of failures."""
        with tempfile.TemporaryDirectory() as folder:
            checker = check_docs.Checker(Path(folder), table, dry_run=True)
            checker.repository, checker.dry_run = Path(folder), False
            (Path(folder) / "known.py").write_text(program)
            with mock.patch("builtins.print") as printed:
                checker.run_page("page.md", text)
        self.assertLessEqual(checker.failures, checker.done)
        return [call.args[0] for call in printed.call_args_list], checker.failures

    def test_a_failed_command_is_told_with_the_end_of_its_output(self):
        said, failures = self.said(
            fenced("python known.py", "true known.py"), "import os, sys\nsys.exit('no ' + os.environ['HOME'][-4:])"
        )
        self.assertRegex(said[0], r"^page.md:2 .* FAILED  python known.py$")
        self.assertEqual(said[1], "    no home")
        self.assertRegex(said[2], r"^page.md:3 .* ok      true known.py$")
        self.assertEqual(failures, 1)

    def test_what_a_command_offers_next_is_run(self):
        table = {**TABLE, "commands": [{"with": "known.py", "next": ["-c"], "places": {"PATH": "films"}}]}
        offers = """print('12:00 INFO next: python -c "import sys; sys.exit(\\'got PATH\\')"')"""
        said, failures = self.said(fenced("python known.py"), offers, table)
        self.assertRegex(said[1], r"page.md:2 next .* FAILED")
        self.assertEqual((said[2], failures), ("    got films", 1))
        said, failures = self.said(fenced("python known.py"), "print('nothing')", table)
        self.assertIn("the last lines must have 'next: ... -c ...'", said[1])
        self.assertEqual(failures, 1)

    def test_a_settings_file_of_a_page_is_written_with_its_places(self):
        table = {**TABLE, "pages": {"page.md": {"places": {"a.yaml": "out/a.yaml"}, "file_places": {8090: 18090}}}}
        text = fenced("python known.py a.yaml") + fenced("# a.yaml; settings", "port: 8090", language="yaml")
        said, _ = self.said(text, "import sys; sys.exit(open(sys.argv[1]).read())", table)
        self.assertEqual(said[1:], ["    # a.yaml; settings\n    port: 18090"])

    def test_help(self):
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts/checks/check_docs.py"), "--help"], capture_output=True
        )
        self.assertEqual(done.returncode, 0)
        self.assertIn(b"--pages", done.stdout)


if __name__ == "__main__":
    unittest.main()
