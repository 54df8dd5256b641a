"""Keep the book's notebooks in one form: run, normalise, check, convert.

A chapter's single source is its ``.ipynb``, committed with outputs. Two people who run
the same chapter must commit the same bytes, so what differs from run to run is removed.

    python book/_tools/notebooks.py from-markdown drafts/data.md book/foundations/data.ipynb
    python book/_tools/notebooks.py run book/foundations/data.ipynb
    python book/_tools/notebooks.py check            # every notebook under book/
"""  # noqa: E501

from __future__ import annotations

import argparse
import ast
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

BOOK = Path(__file__).resolve().parents[1]
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python"}
TIMEOUT = 120  # seconds a cell, as in _config.yml

# What may stay in the metadata; all else is left behind by some editor.
NOTEBOOK_KEYS = {"kernelspec", "language_info", "metarec"}
CELL_KEYS = {"tags", "mystnb"}
# myst-nb's tag of a cell whose code is folded on the site.
FOLDED = "hide-input"

_CELL_ID = re.compile(r"^[a-zA-Z0-9-_]{1,64}$")
_MACHINE = re.compile(
    r"/(?:home|Users|root|tmp|opt|var|usr)/|site-packages|[A-Z]:\\\\Users"
)
_ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
_PROGRESS = re.compile(r"\d+%\|[ #\u2588-\u258f]*\||\bit/s\b|\bs/it\b|\r(?!\n)")


def chapters(paths: Iterable[str | Path] = ()) -> list[Path]:
    """Return the given notebooks, or all under ``book/`` if none is given."""
    given = [Path(path) for path in paths]
    found = given or sorted(
        path for path in BOOK.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
    )
    for path in found:
        if not path.is_file():
            raise FileNotFoundError(f"no notebook {path}")
    return found


def read(path: Path) -> NotebookNode:
    """Read a notebook in format 4."""
    return nbformat.read(path, as_version=4)


def write(path: Path, notebook: NotebookNode) -> None:
    """Write a notebook whole or not at all."""
    text = nbformat.writes(notebook).rstrip("\n") + "\n"
    aside = path.with_name(path.name + ".part")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells that hold code."""
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and cell.source.strip()
    ]


def is_stderr(output: NotebookNode) -> bool:
    """Tell a stream of warnings or of a progress bar from an output."""
    return output.output_type == "stream" and output.name == "stderr"


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook in the one form that is committed.

    Cells keep a unique id or get one from their position; metadata of editors, timings,
    stderr, empty cells and trailing blanks go; streams of one cell are joined. The
    cells that only check and publish the numbers of a text are tagged to be folded.
    """
    clean = nbformat.v4.new_notebook()
    clean.nbformat, clean.nbformat_minor = 4, 5
    clean.metadata = {
        **{k: v for k, v in notebook.metadata.items() if k in NOTEBOOK_KEYS},
        "kernelspec": KERNEL,
        "language_info": LANGUAGE,
    }
    taken: set[str] = set()
    for cell in notebook.cells:
        source = "\n".join(line.rstrip() for line in cell.source.strip().split("\n"))
        if not source:
            continue
        name = cell.get("id", "")
        if not _CELL_ID.match(name) or name in taken:
            position = len(clean.cells)
            while (name := f"c{position:03d}") in taken:
                position += 1
        taken.add(name)
        fresh = NotebookNode(
            id=name,
            cell_type=cell.cell_type,
            metadata={k: v for k, v in cell.metadata.items() if k in CELL_KEYS and v},
            source=source,
        )
        if cell.cell_type == "code":
            fresh.execution_count = cell.execution_count
            fresh.outputs = [_output(o) for o in _joined(cell.outputs)]
        clean.cells.append(fresh)
    count = 0
    for cell in code_cells(clean):
        if cell.execution_count is not None:
            count += 1
            _renumber(cell, count)
    fold_checks(clean)
    return clean


def fold_checks(notebook: NotebookNode) -> None:
    """Tag the cells that only check and publish the numbers of a text.

    Such a cell ends in ``glue(...)`` and shows nothing: the number appears in a
    sentence below it. A reader wants the sentence, and sometimes the cell. Of a cell
    that shows something, as a drawing, its author decides.
    """
    cells = code_cells(notebook)
    fold = foldable([(cell.source, shows(cell)) for cell in cells])
    for cell, folded in zip(cells, fold, strict=True):
        tags = [tag for tag in cell.metadata.get("tags", []) if tag != FOLDED]
        if shows(cell):
            continue
        if tags := tags + [FOLDED] * folded:
            cell.metadata["tags"] = tags
        else:
            cell.metadata.pop("tags", None)


def foldable(cells: list[tuple[str, bool]]) -> list[bool]:
    """Tell for each cell, given its source and whether it shows something.

    What a later cell in full view makes use of stays in view as well.
    """
    fold, needed = [], set[str]()
    for source, shown in reversed(cells):
        made, taken = names(source)
        fold.append("glue(" in source and not shown and not made & needed)
        if not fold[-1]:
            needed = needed - made | taken
    return fold[::-1]


def shows(cell: NotebookNode) -> bool:
    """Tell whether a cell has an output beside the values that it glues."""
    return any(
        not output.get("metadata", {}).get("scrapbook", {}).get("mime_prefix")
        for output in cell.outputs
    )


def names(source: str) -> tuple[set[str], set[str]]:
    """The names that a cell sets, and those that it takes from cells before it."""
    made, taken = set[str](), set[str]()
    lines = source.split("\n")  # those of IPython's own are no Python
    python = "\n".join("" if re.match(r"\s*[%!?]", x) else x for x in lines)
    for statement in ast.parse(python).body:
        parts = list(ast.walk(statement))
        inside = {n.arg for n in parts if isinstance(n, ast.arg)}
        for part in parts:
            if isinstance(part, ast.comprehension | ast.For):
                inside |= {n.id for n in ast.walk(part.target) if hasattr(n, "id")}
        found = [n for n in parts if isinstance(n, ast.Name)]
        read = {n.id for n in found if isinstance(n.ctx, ast.Load)}
        taken |= read - inside - made
        made |= {n.id for n in found if isinstance(n.ctx, ast.Store)}
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            made.add(statement.name)
    return made, taken


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Drop stderr; join the pieces of stdout, which depend on timing."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if is_stderr(output):
            continue
        if output.output_type == "stream" and kept and kept[-1].output_type == "stream":
            kept[-1] = NotebookNode(kept[-1] | {"text": kept[-1].text + output.text})
        else:
            kept.append(output)
    return kept


def _output(output: NotebookNode) -> NotebookNode:
    """Empty the metadata of an output, but for the names that `glue` leaves there."""
    if "metadata" in output:
        kept = {k: v for k, v in output.metadata.items() if k == "scrapbook"}
        return NotebookNode(output | {"metadata": kept})
    return output


def _renumber(cell: NotebookNode, count: int) -> None:
    cell.execution_count = count
    for output in cell.outputs:
        if "execution_count" in output:
            output.execution_count = count


def problems(notebook: NotebookNode) -> list[str]:
    """Say what keeps a notebook from being committed; empty if nothing does."""
    found = []
    if nbformat.writes(normalise(notebook)) != nbformat.writes(notebook):
        found.append("is not normalised")
    cells = code_cells(notebook)
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        found.append("has code cells that were not all run, once and in order")
    for cell in cells:
        where = f"cell {cell.execution_count or cell.id}"
        text = "".join(_texts(cell.outputs))
        if any(output.output_type == "error" for output in cell.outputs):
            found.append(f"{where} raised an error")
        if match := _MACHINE.search(text):
            found.append(f"{where} shows a path of this machine ({match.group()})")
        if _ADDRESS.search(text):
            found.append(f"{where} shows a memory address; print something stable")
        if _PROGRESS.search(text):
            found.append(f"{where} shows a progress bar")
        if _has_image(cell) and not alt_text(cell):
            found.append(
                f"{where} draws a figure without alt text: give the cell the metadata "
                '"mystnb": {"image": {"alt": "what the figure shows"}}'
            )
        images = {m for o in cell.outputs for m in o.get("data", {}) if "image/" in m}
        if not images <= {"image/png"}:
            found.append(f"{where} holds a figure that is not PNG: {sorted(images)}")
    return found


def alt_text(cell: NotebookNode) -> str:
    """Return the alt text that a cell declares for its figure."""
    options = cell.metadata.get("mystnb", {})
    return str(options.get("image", {}).get("alt", "")).strip()


def _has_image(cell: NotebookNode) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.outputs)


def _texts(outputs: list[NotebookNode]) -> Iterable[str]:
    for output in outputs:
        yield output.get("text", "")
        for kind, value in output.get("data", {}).items():
            if kind.startswith("text/"):
                yield value


def run(path: Path) -> list[str]:
    """Execute a notebook in its folder, write it normalised, return what is wrong."""
    notebook = read(path)
    print(f"running {path}", flush=True)
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name=KERNEL["name"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    wrong = []
    try:
        client.execute()
    except CellExecutionError as error:
        # Nothing is written: the outputs of the last good run stay.
        return [f"{path}: {error}"]
    for cell in code_cells(notebook):
        for output in filter(is_stderr, cell.outputs):
            last = output.text.strip().splitlines()[-1:]
            wrong.append(
                f"{path}: cell {cell.execution_count} writes to stderr, which nbval "
                f"compares and the build refuses: {' '.join(last)}"
            )
    clean = normalise(notebook)
    write(path, clean)
    return wrong + [f"{path}: {problem}" for problem in problems(clean)]


def from_markdown(source: Path, target: Path) -> None:
    """Turn a MyST text notebook into an ``.ipynb`` without outputs."""
    notebook = jupytext.read(source, fmt="md:myst")
    for cell in notebook.cells:
        cell.pop("id", None)  # jupytext draws one at random
    target.parent.mkdir(parents=True, exist_ok=True)
    write(target, normalise(notebook))
    print(f"wrote {target}; now: python book/_tools/notebooks.py run {target}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_ in [
        ("run", "execute in place, then normalise (all chapters if none is given)"),
        ("normalise", "normalise in place without running"),
        ("check", "say what is not as it must be committed"),
    ]:
        command = commands.add_parser(name, help=help_)
        command.add_argument("notebooks", nargs="*")
    convert = commands.add_parser("from-markdown", help="MyST text to .ipynb")
    convert.add_argument("source", type=Path)
    convert.add_argument("target", type=Path)
    args = parser.parse_args(arguments)

    if args.command == "from-markdown":
        from_markdown(args.source, args.target)
        return 0
    wrong: list[str] = []
    for path in chapters(args.notebooks):
        if args.command == "run":
            wrong += run(path)
        elif args.command == "normalise":
            write(path, normalise(read(path)))
        else:
            wrong += [f"{path}: {problem}" for problem in problems(read(path))]
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
