"""What may be committed, and what may not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

from assignments.course import HERE, assignments

ROOT = Path(__file__).resolve().parents[1]

TOP_LEVEL = {
    ".ci",
    ".github",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "_config.yml",
    "_toc.yml",
    "assignments",
    "benchmarks",
    "book",
    "metarec",
    "pyproject.toml",
    "requirements.txt",
    "tests",
}
# A few rows stand in tests as examples of the layouts; a data set has more.
EXAMPLE_ROWS = 20
ROW = re.compile(
    r"^\d+(?:\t|\\t|::|,)\d+(?:\t|\\t|::|,)[0-5](?:\.\d)?(?:\t|\\t|::|,)\d{9,10}\b"
    r"|^\d+(?:\||::|\t|,)[^|\t]+\(\d{4}\)(?:\||::|\t|,)",
    re.MULTILINE,
)


@cache
def committed() -> list[Path]:
    """Files that git knows or would add."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def texts() -> list[tuple[Path, str]]:
    """All committed texts; an image in a notebook is no text, and spells at random."""
    found = []
    for path in committed():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        text = re.sub(r'"image/png": "[^"]*"', "", text)
        found.append((path.relative_to(ROOT), text))
    return found


def test_nothing_stands_outside_the_agreed_top_level() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in committed()} <= TOP_LEVEL


def test_no_movielens_rows_are_committed() -> None:
    lines = ["1\t2\t5\t881250949", "1::2::5::978300760", "3\\t4\\t1\\t881250949"]
    assert len(ROW.findall("\n".join(lines))) == 3
    many = {
        str(path): n
        for path, text in texts()
        if (n := len(ROW.findall(re.sub(r'^\s*"', "", text, flags=re.M))))
        > EXAMPLE_ROWS
    }
    assert many == {}


def test_no_third_party_or_minified_script_is_committed() -> None:
    scripts = [
        (path, text) for path, text in texts() if path.suffix in {".js", ".css", ".mjs"}
    ]
    for path, text in scripts:
        assert ".min." not in path.name
        assert max(map(len, text.splitlines()), default=0) < 300, f"{path} is minified"


def test_no_large_file_is_committed() -> None:
    large = [str(path) for path in committed() if path.stat().st_size > 2_000_000]
    assert large == []


def test_no_path_of_a_machine_and_no_registry_host() -> None:
    words = re.compile(
        "|".join(
            [
                r"(?<![\w.])/(?:ho" + r"me|wo" + r"rk|ro" + r"ot|Us" + r"ers)/\w",
                "python" + "hosted",
                r"registry\.npm" + "js",
                r"pypi\." + "org",
            ]
        )
    )
    found = {
        f"{path}: {match.group()}"
        for path, text in texts()
        if (match := words.search(text))
    }
    assert found == set()


def test_no_word_of_unfinished_work() -> None:
    words = re.compile(r"\b(?:TO" + "DO|FIX" + "ME|XX" + r"X)\b")
    assert [str(path) for path, text in texts() if words.search(text)] == []


def test_the_book_is_pinned_and_the_package_is_not() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    assert lines[-1] == "-e ."
    pins = dict(line.split("==") for line in lines[:-1])
    assert "+" not in pins["torch"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    ranges = project["project"]["dependencies"]
    assert all(">=" in line and "==" not in line for line in ranges)
    assert {line.split(">=")[0] for line in ranges} <= set(pins)


def test_the_hook_takes_a_subject_of_72_characters() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    (hooks,) = [repository["hooks"] for repository in config["repos"]]
    (refuses,) = [hook["entry"] for hook in hooks if hook["id"] == "subject"]
    body = "\n\n" + 80 * "b" + "\n"
    assert not re.search(refuses, 72 * "a" + body)
    assert re.search(refuses, 73 * "a" + body)


def test_the_loops_leave_out_only_marks_that_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    marks = project["tool"]["pytest"]["ini_options"]["markers"]
    said = re.findall(r'-m "not \((.*?)\)"', (ROOT / "Makefile").read_text("utf-8"))
    check, test = [set(line.split(" or ")) for line in said]
    assert check == {line.split(":")[0] for line in marks}
    assert test == check - {"slow"}


def test_faults_are_tried_by_tests_that_find_what_they_read() -> None:
    """What borrows from a file that reads the book cannot run in a copy without it."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    words = settings["tool"]["mutmut"]["pytest_add_cli_args"]
    left_out = {word.partition("--ignore=")[2] for word in words}
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        borrows = re.findall(r"^from (test_\w+) import", text, re.MULTILINE)
        if left_out & {f"tests/{name}.py" for name in borrows}:
            assert f"tests/{path.name}" in left_out, f"{path.name}: see tool.mutmut"
    there = {f"tests/{path.name}" for path in (ROOT / "tests").iterdir()} | {""}
    assert left_out <= there


def test_the_changelog_has_the_version() -> None:
    version = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"]
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(version)}$", text, re.MULTILINE)


def test_the_citation_and_the_package_agree_on_the_version() -> None:
    import metarec

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == metarec.__version__


@pytest.mark.slow
@pytest.mark.parametrize("id", assignments())
def test_the_checks_of_an_assignment_have_types(id: str) -> None:
    """Each has modules `checks` and `classroom`, so each is looked at by itself."""
    files = [f"source/{id}/checks.py", f"hidden/{id.replace('-', '_')}.py", "classroom"]
    command = [sys.executable, "-m", "mypy", "--config-file=", "--python-version=3.11"]
    command += ["--check-untyped-defs", "--ignore-missing-imports"]
    done = subprocess.run(
        [*command, "--explicit-package-bases", *files],
        cwd=HERE,
        env={**os.environ, "MYPYPATH": f"{HERE}:source/{id}:{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]],
    ids=" ".join,
)
def test_style_and_types(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
