"""What the book asks of Sphinx beyond its themes and extensions: four small things.

1. MathJax comes from an installed package and is copied into the site, so that no page
   asks another host for anything.
2. Thebe is taken out: jupyter-book always loads it, it is not used here, and its
   script is registered twice, which prints an error in the browser's console.
3. The cache of executed notebooks is keyed by the package, the requirements, the
   committed tables and how figures are drawn. jupyter-cache compares code cells only,
   so without this an edit of ``metarec``, or of a table that a chapter reads, would
   publish yesterday's outputs.
4. The page at the root, which sends a visitor on to the start page, asks for no icon.
   Otherwise a browser looks for one, in vain or while it is already leaving the page.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.fileutil import copy_asset

MATHJAX = "tex-svg.js"
ROOT_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>metarec</title>
<link rel="icon" href="data:,">
<meta http-equiv="refresh" content="0; url={start}">
</head>
<body><p><a href="{start}">metarec starts here</a></p></body>
</html>
"""


def mathjax_file() -> Path:
    """Return the one file of MathJax that the site needs: TeX in, SVG out."""
    # Found, not imported: the name of the package has hyphens.
    spec = find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "MathJax is missing: pip install -r requirements.txt brings it"
        )
    return Path(spec.origin).parent / "static" / "mathjax" / MATHJAX


def hash_of(root: Path, *more: Path) -> str:
    """Hash the package, the requirements and the files named beside them."""
    kinds = ("*.py", "*.json", "*.mplstyle")
    package = sorted(p for kind in kinds for p in (root / "metarec").rglob(kind))
    digest = hashlib.sha256()
    for path in [*package, root / "requirements.txt", *more]:
        if path.exists():
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_key(root: Path) -> str:
    """Hash what decides a chapter's outputs, beside its own cells."""
    tables = sorted((root / "benchmarks" / "results").rglob("*.csv"))
    return hash_of(root, *tables, root / "book" / "_ext" / "sharp_figures.py")


def configure(app: Sphinx, config: Config) -> None:
    """Set what must be computed: the path of MathJax and the folder of the cache."""
    config.mathjax_path = f"mathjax/{MATHJAX}"
    root = Path(app.srcdir)
    config.nb_execution_cache_path = str(
        root / "_build" / ".jupyter_cache" / cache_key(root)
    )


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Put MathJax among the site's static files."""
    if error is None:
        copy_asset(str(mathjax_file()), str(Path(app.outdir) / "_static" / "mathjax"))


def write_root_page(app: Sphinx, error: Exception | None) -> None:
    """Write the page that a visitor of the bare address meets."""
    start = f"{app.config.root_doc}.html"
    page = Path(app.outdir) / "index.html"
    if error is None and app.builder.name == "html" and start != page.name:
        page.write_text(ROOT_PAGE.format(start=start), encoding="utf-8")


def drop_thebe(app: Sphinx) -> None:
    """Disconnect every event handler of sphinx-thebe and forget its style sheet."""
    for listeners in app.events.listeners.values():
        listeners[:] = [
            one for one in listeners if one.handler.__module__ != "sphinx_thebe"
        ]
    app.registry.css_files[:] = [
        (name, attributes)
        for name, attributes in app.registry.css_files
        if name != "sphinx-thebe.css"
    ]


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the four."""
    drop_thebe(app)
    # Before myst-nb reads its configuration.
    app.connect("config-inited", configure, priority=100)
    app.connect("build-finished", copy_mathjax)
    # Before sphinx-external-toc, which writes the page where there is none.
    app.connect("build-finished", write_root_page, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
