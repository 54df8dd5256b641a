"""The site's own fonts, the same for every reader: Inter, and Inconsolata for code.

Both come from installed packages (SIL Open Font License 1.1). Cut down to what the
pages need, Latin letters and a range of weights, each is a few dozen kilobytes. The
style sheet names them (``metarec.css``) and system fonts after them.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont
from fontTools.varLib.instancer import instantiateVariableFont
from sphinx.util.fileutil import copy_asset

WEIGHTS = (400, 700)
# Letters of western Europe, Greek, and the signs of prose, arithmetic and code.
CHARACTERS = [
    *range(0x20, 0x7F),
    *range(0xA0, 0x180),
    *range(0x391, 0x3CA),
    *range(0x2010, 0x2028),
    *map(ord, "\u2030\u2032\u2033\u2039\u203a\u20ac\u2190\u2191\u2192\u2193\u2212"),
    *map(ord, "\u221a\u221e\u2248\u2260\u2264\u2265\u2588\u2591\u2713\u2715"),
]

# The name on the site: the package, its file, and where the axes are fixed or cut off.
TEXT = {"opsz": 18.0, "wght": WEIGHTS}
CODE = {"wdth": 100.0, "wght": WEIGHTS}
FONTS = {
    "inter": ("fontpkg_inter", "Inter[opsz,wght].ttf", TEXT),
    "inter-italic": ("fontpkg_inter", "Inter-Italic[opsz,wght].ttf", TEXT),
    "inconsolata": ("fontpkg_inconsolata", "Inconsolata[wdth,wght].ttf", CODE),
}


def installed(package: str, file: str) -> Path:
    """A file of a package, or ``FileNotFoundError`` that says what to install."""
    # Found, not imported: the name of a package may have hyphens.
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f"{package} is missing: pip install -r requirements.txt brings it"
        )
    return Path(spec.origin).parent / file


def cut(whole: TTFont, axes: dict[str, Any], target: Path) -> None:
    """Write the part of a font that the site needs."""
    # Kerning and digits of equal width; no ligatures: code shows what was typed.
    options = Options(layout_features=["kern", "mark", "mkmk", "tnum", "ccmp"])
    options.name_IDs = [0, 1, 2, 13, 14]  # its makers, its name, its licence
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=CHARACTERS)
    subsetter.subset(whole)
    variable = instantiateVariableFont(whole, axes)
    variable.recalcTimestamp = False
    variable.flavor = "woff2"
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_suffix(".partial")
    variable.save(aside)
    aside.rename(target)


def write_fonts(root: Path, static: Path) -> None:
    """Put the fonts among the site's static files, cut once for each recipe."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    for name, (package, file, axes) in FONTS.items():
        made = root / "_build" / ".fonts" / recipe / f"{name}.woff2"
        if not made.exists():
            cut(TTFont(installed(package, f"files/{file}")), axes, made)
        copy_asset(made, static / "fonts")
