"""The icons that the site uses, in place of the whole library that the theme ships.

The theme loads a script of 1.5 MB that knows two thousand icons; a page shows a dozen.
After the build the shapes of that dozen are taken from the script into a style sheet,
and the script is emptied. The theme's own style sheets draw a few more with a font of
156 kB and name each of the two thousand: there each glyph becomes a shape too, and font
and names go.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

SCRIPT = "_static/scripts/fontawesome.js"
SHEET = "icons.css"
FONTS = "_static/vendor/fontawesome"
THEMES = ("pydata-sphinx-theme.css", "sphinx-book-theme.css")
# Sizes and the like, which are no icons.
MODIFIERS = {"brands", "regular", "solid", "lg", "sm", "xs", "fw", "spin"}
# A box of the text's colour, in the shape of an icon; a rule may add padding to it.
SHAPE = (
    "box-sizing:content-box;width:1em;height:1em;background-color:currentColor;"
    "mask:var(--icon) center/contain no-repeat content-box"
)
# What the theme's style sheets, which have no spaces, say of the font.
NAMING = re.compile(r'((?:\.fa-[\w-]+:before,?)+)\{content:"([^"]+)"\}')
FACE = re.compile(r"@font-face\{[^}]*Font Awesome[^}]*\}")
GLYPH = re.compile(r'(--pst-[\w-]+:)"(\\?[^"\\]+)"')
SHOWN = re.compile(r"content:(var\(--pst-(?:icon|breadcrumb)-[\w-]+\))")
FONT = re.compile(r"font:var\(--fa-font-(?:solid|brands)\)")
DIRECT = re.compile(
    r'content:"(\\?[^"\\]+)";font-family:Font Awesome\\ 6 Free;font-weight:900'
)
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
            rules.append(f".fa-{name} {{ --icon: {address(*known)}; }}\n")
    return RULES % f":is({', '.join(found)})" + "".join(rules)


def address(width: str, height: str, path: str) -> str:
    """The drawing of a shape, as CSS wants it."""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} '
        f'{height}"><path d="{path}"/></svg>'
    )
    return f'url("data:image/svg+xml,{quote(svg, safe=" =/:")}")'


def glyphs(sheet: str) -> dict[str, list[str]]:
    """The names of the icon that each glyph of the font shows."""
    return {
        glyph(text): re.findall(r"\.fa-([\w-]+):", selector)
        for selector, text in NAMING.findall(sheet)
    }


def without_the_font(sheet: str, names: dict[str, list[str]], script: str) -> str:
    """A style sheet of the theme with shapes in place of the font's glyphs.

    A glyph that is no known icon is an error: it would be shown as an empty box.
    """

    def drawn(text: str) -> str:
        for name in names.get(glyph(text), []):
            if known := shape(script, name):
                return address(*known)
        raise ExtensionError(f"icons: no shape for the glyph {text!r}")

    sheet = FACE.sub("", NAMING.sub("", sheet))
    sheet = GLYPH.sub(lambda found: found[1] + drawn(found[2]), sheet)
    sheet = SHOWN.sub(r'--icon:\1;content:"";display:inline-block', sheet)
    sheet = FONT.sub(SHAPE, sheet)
    return DIRECT.sub(
        lambda found: (
            f'--icon:{drawn(found[1])};content:"";display:inline-block;{SHAPE}'
        ),
        sheet,
    )


def glyph(text: str) -> str:
    """The character that a string of CSS stands for: itself, or its number."""
    number = re.fullmatch(r"\\([0-9a-f]+) ?", text)
    return chr(int(number[1], 16)) if number else text.removeprefix("\\")


def replace_the_library(app: Sphinx, error: Exception | None) -> None:
    """Write the style sheet, empty the script, and take out the font."""
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
    source = Path(_theme_folder()) / "static" / "styles" / THEMES[0]
    names = glyphs(source.read_text(encoding="utf-8"))
    for theme in THEMES:
        path = Path(app.outdir) / "_static" / "styles" / theme
        text = without_the_font(path.read_text(encoding="utf-8"), names, library)
        path.write_text(text, encoding="utf-8")
    shutil.rmtree(Path(app.outdir) / FONTS, ignore_errors=True)


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
