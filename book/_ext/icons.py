"""The icons that the site uses, in place of the whole library that the theme ships.

The theme loads a script of 1.5 MB that knows two thousand icons; a page shows a dozen.
After the build the shapes of that dozen are taken from the script into a style sheet,
and the script is emptied.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sphinx.application import Sphinx

SCRIPT = "_static/scripts/fontawesome.js"
SHEET = "icons.css"
# Sizes and the like, which are no icons.
MODIFIERS = {"brands", "regular", "solid", "lg", "sm", "xs", "fw", "spin"}
RULES = """\
/* Made by book/_ext/icons.py from the theme's Font Awesome Free icons (CC BY 4.0). */
%s::before {
  content: ""; display: inline-block; width: 1em; height: 1em;
  vertical-align: -0.125em; background-color: currentColor;
  -webkit-mask: var(--icon) center / contain no-repeat;
  mask: var(--icon) center / contain no-repeat;
}
.fa-lg { font-size: 1.25em; line-height: 0.05em; vertical-align: -0.075em; }
"""


def used(site: Path) -> set[str]:
    """Names of the icons in the pages, and in the scripts that add some."""
    names: set[str] = set()
    for path in [*site.rglob("*.html"), *(site / "_static").rglob("*.js")]:
        if path != site / SCRIPT:
            text = path.read_text(encoding="utf-8")
            names |= set(re.findall(r"\bfa-([a-z][a-z0-9-]*)\b", text))
    return names - MODIFIERS


def shape(script: str, name: str) -> tuple[str, str, str] | None:
    """Width, height and path of an icon; the script's last set is the solid one."""
    found = re.findall(
        rf'(?<![\w-])"?{re.escape(name)}"?:\[(\d+),(\d+),\[[^\]]*\],"[^"]*","([^"]+)"\]',
        script,
    )
    return found[-1] if found else None


def style_sheet(script: str, names: set[str]) -> str:
    """A rule for each icon that the script knows."""
    rules, found = [], []
    for name in sorted(names):
        if known := shape(script, name):
            found.append(f".fa-{name}")
            width, height, path = known
            svg = (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} '
                f'{height}"><path d="{path}"/></svg>'
            )
            address = f'url("data:image/svg+xml,{quote(svg, safe=" =/:")}")'
            rules.append(f".fa-{name} {{ --icon: {address}; }}\n")
    return RULES % f":is({', '.join(found)})" + "".join(rules)


def replace_the_library(app: Sphinx, error: Exception | None) -> None:
    """Write the style sheet and empty the script."""
    script = Path(app.outdir) / SCRIPT
    if error is not None or app.builder.name != "html" or not script.exists():
        return
    library = script.read_text(encoding="utf-8")
    if "fa-" not in library:  # an incremental build: it was emptied before
        source = Path(_theme_folder()) / "static" / "scripts" / "fontawesome.js"
        library = source.read_text(encoding="utf-8")
    sheet = style_sheet(library, used(Path(app.outdir)))
    (Path(app.outdir) / "_static" / SHEET).write_text(sheet, encoding="utf-8")
    script.write_text(f"// The icons are in {SHEET}.\n", encoding="utf-8")


def _theme_folder() -> Path:
    import pydata_sphinx_theme

    return (
        Path(str(pydata_sphinx_theme.__file__)).parent / "theme" / "pydata_sphinx_theme"
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Link the style sheet from every page; fill it when they are written."""
    app.add_css_file(SHEET)
    app.connect("build-finished", replace_the_library)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
