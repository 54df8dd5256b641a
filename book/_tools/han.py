"""Cut the Chinese characters of the glossary out of a font that has them.

    python book/_tools/han.py /path/to/NotoSansCJK-Regular.ttc

A reader whose system has no Chinese font would see boxes. Run this after a new term;
a test says when. Noto Sans CJK is under the SIL Open Font License 1.1, which allows it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

BOOK = Path(__file__).parents[1]
FONT = BOOK / "_static" / "han.woff"


def characters() -> set[str]:
    """The Chinese characters of the glossary."""
    text = (BOOK / "reference" / "glossary.md").read_text(encoding="utf-8")
    return {one for one in text if "\u4e00" <= one <= "\u9fff"}


def main() -> None:
    """Write the font."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("font", type=Path, help="a font with simplified Chinese")
    parser.add_argument("--number", type=int, default=2, help="which of a collection")
    given = parser.parse_args()
    number = given.number if given.font.suffix == ".ttc" else -1
    font = TTFont(given.font, fontNumber=number)
    options = Options(layout_features=[], hinting=False)
    options.name_IDs = [0, 13, 14]  # who made it, and its licence
    subsetter = Subsetter(options)
    subsetter.populate(text="".join(sorted(characters())))
    subsetter.subset(font)
    font.recalcTimestamp = False  # the same file each time
    font.flavor = "woff"
    font.save(FONT)
    print(f"{FONT}: {len(characters())} characters, {FONT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
