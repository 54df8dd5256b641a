"""The page "Teach it your taste": its models are trained by the build, for the browser.

No number learned from MovieLens is committed: whoever builds the site trains (fifteen
seconds) and finds ``_static/demo-model.js``. The file is kept in ``_build/.demo`` under
a key of the package: an unchanged package trains nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAGE = "book/demo"
MADE_BY = "_ext/demo.py", "_tools/demo_model.py"
SCRIPT = "demo-model.js"


def as_script(model: dict[str, Any]) -> str:
    """A classic script, since a page on the disk may not fetch a file of numbers."""
    text = json.dumps(model, ensure_ascii=True, separators=(",", ":"))
    text = text.replace("</", "<\\/")
    return f"window.METAREC_DEMO = {text};\n"


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


def train_on_movielens() -> dict[str, Any]:
    """The page's model; what trains it is loaded where it is needed alone."""
    sys.path.append(str(Path(__file__).parents[1] / "_tools"))
    from demo_model import of_movielens

    return of_movielens()


def kept(root: Path, make: Callable[[], dict[str, Any]] = train_on_movielens) -> Path:
    """The script in the cache, made if the package has changed since."""
    key = hash_of(root, *(root / "book" / name for name in MADE_BY))
    path = root / "_build" / ".demo" / f"{key}.js"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}.part")
        aside.write_text(as_script(make()), encoding="utf-8")
        aside.replace(path)
    return path


def write_model(root: Path, static: Path) -> None:
    """Put the model among the site's static files, if the site has the page."""
    if (root / f"{PAGE}.md").exists():
        (static / SCRIPT).write_bytes(kept(root).read_bytes())
