"""Say which cells have to run first, in place of a NameError."""

from __future__ import annotations

from typing import Any


def needs(names: dict[str, Any], *needed: str) -> None:
    """Raise ``NotImplementedError`` if the notebook lacks one of the ``needed`` names.

    A demonstration begins with ``needs(globals(), "recommender")``: until the answers
    that make the recommender are written, that is all it says.
    """
    if missing := [name for name in needed if name not in names]:
        raise NotImplementedError(
            f"there is no {' and no '.join(missing)} yet: the cells above have to run "
            "first, with your answers in them"
        )
