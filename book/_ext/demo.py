"""The page "Teach it your taste": its models are trained by the build, for the browser.

No number learned from MovieLens is committed: whoever builds the site trains (fifteen
seconds) and finds ``_static/demo-model.js``. The file is kept in ``_build/.demo`` under
a key of the package: an unchanged package trains nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

PAGE = "book/demo"
SCRIPT = "demo-model.js"
MIN_RATINGS = 50  # of a film that the page knows
DIGITS = 4
DIM = 8  # of a film's vector for lists, genres apart
EPOCHS = 12, 40  # for stars, for lists

# By the labels of MovieLens-100K.
STARTERS = [50, 174, 204, 71, 168, 216, 483, 313, 127, 56, 98, 100]
SHOWN = [210, 95, 82, 134, 179, 288]
MIRA = {50: 5, 172: 5, 181: 4, 174: 5, 56: 2, 98: 2, 100: 1, 204: 5, 71: 4, 127: 3}
# The start that was not meta-learned: a zero head and the rate of the textbooks.
PLAIN_RATE = 0.1

ARTICLE = re.compile(
    r"^(?P<name>.+), (?P<article>The|A|An|Il|La|Le|Les|El|Das|Der|Die)(?= \(|$)"
)


def trained(
    system: Any, warm: Any, group: tuple[Any, ...], epochs: int, **other: Any
) -> Any:
    """One system on its item vectors, trained as ``MetaRecommender.fit`` does."""
    from metarec.systems import Parts, default_config, fit_system
    from metarec.validation import validation_score

    histories, train, validation, features = group

    def score(meta: Any) -> float:
        return validation_score(meta, histories, validation, goal=system.goal)

    parts = replace(Parts.of(histories, train, warm, features), **other)
    config = replace(default_config(system), epochs=epochs, patience=epochs // 3)
    meta = fit_system(system, parts, histories, train, score, config)
    return meta.requires_grad_(False)


def list_learner(group: tuple[Any, ...], users: Any, epochs: int = EPOCHS[1]) -> Any:
    """The learner in context, trained on lists; of a visitor no profile is known.

    The genres of a film, 0 and 1, stand beside its vector: those who like one musical
    seldom like the next, so counts of pairs alone do not know that there are musicals.
    """
    import torch

    from metarec.systems import System, item_vectors

    histories, *_, features = group
    warm = item_vectors(histories, users, features, dim=DIM, goal="lists")
    genres = features[:, ((features == 0) | (features == 1)).all(0)]
    factors = torch.cat([warm.factors, genres.to(warm.factors)], 1)
    warm = replace(warm, factors=factors, implicit=None)
    system = System(learner="in-context", goal="lists")
    return trained(system, warm, group, epochs, n_profile=0)


def exported(lists: Any, known: Any) -> dict[str, Any]:
    """What the page needs of the system for lists: tables and layers, transposed."""
    net, model = lists.learner, lists.model
    phi, offset = model.features(known), model.offset(known)
    # The network reads offsets from their mean, which is another over these films.
    moved = (offset.mean() - model.item_offset.mean()) * net.first[phi.shape[1]]
    return {
        "factors": whole(phi, 100),
        "inputs": whole(phi + net.items[known], 100),
        "offset": plain(offset),
        "start": plain(model.head),
        "scale": plain(lists.scale()["head"]),
        "first": whole(net.first.T, 1000),
        "bias": plain(net.first_bias + moved),
        "last": whole(net.third[:, : 2 * phi.shape[1]].T, 1000),
    }


def learn(data: Any, epochs: tuple[int, int] = EPOCHS) -> dict[str, Any]:
    """Train two systems for stars, on the same item vectors, and one for lists.

    Returns what the page needs, as plain numbers.
    """
    import torch

    from metarec.features import item_features
    from metarec.systems import System, hold_out, item_vectors
    from metarec.tasks import UserHistories

    users, histories = torch.arange(data.n_users), UserHistories(data)
    train, validation = hold_out(histories, users)
    group = histories, train, validation, item_features(data)
    others = users[~torch.isin(users, validation)]
    warm = item_vectors(histories, others, group[-1])
    gradient, bayesian = System(), System("mf", "meta-sgd", "bayesian")
    descent = trained(gradient, warm, group, epochs[0]).prior()
    belief = trained(bayesian, warm, group, epochs[0]).prior()
    lists = list_learner(group, others, epochs[1])
    _, item, _ = histories.ratings_of(users)
    count = torch.bincount(item, minlength=data.n_items)
    known = torch.argsort(count, descending=True, stable=True)
    known = known[count[known] >= MIN_RATINGS]
    return {
        "films": films(data.items.iloc[known.numpy()], count[known].tolist()),
        "factors": plain(warm.factors[known]),
        "offset": plain(warm.offset[known]),
        "descent": {
            "start": plain(descent.mean["head"]),
            "rate": plain(descent.scale["head"]),
            "steps": gradient.steps,
        },
        "plain": {"start": [0.0] * len(descent.mean["head"]), "rate": PLAIN_RATE},
        "prior": {
            "mean": plain(belief.mean["head"]),
            "covariance": plain(torch.diag(belief.scale["head"])),
            "noise": plain(belief.noise),
        },
        "lists": exported(lists, known),
        "like": data.scale.like,
        "low": data.scale.low,
        "high": data.scale.high,
        "citation": data.citation,
    }


def films(items: Any, count: list[int]) -> list[dict[str, Any]]:
    """What the page says of each film, the most rated first."""
    return [
        {
            "id": int(row.item_id),
            "title": ARTICLE.sub(r"\g<article> \g<name>", row.title),
            "year": int(row.year),
            "genres": ", ".join(row.genres),
            "count": n,
        }
        for row, n in zip(items.itertuples(), count, strict=True)
    ]


def plain(tensor: Any) -> Any:
    """Numbers, or lists of them, rounded to ``DIGITS`` significant digits."""

    def rounded(value: Any) -> Any:
        if isinstance(value, list):
            return [rounded(one) for one in value]
        return float(f"{value:.{DIGITS}g}")

    return rounded(tensor.tolist())


def whole(tensor: Any, times: int) -> Any:
    """The nearest whole numbers, times so many: a list needs no more, and is short."""
    return (times * tensor).round().int().tolist()


def chosen(model: dict[str, Any]) -> dict[str, Any]:
    """The films that the page asks about and shows, and Mira's stars, by place."""
    place = {film["id"]: i for i, film in enumerate(model["films"])}
    return {
        "starters": [place[label] for label in STARTERS],
        "shown": [place[label] for label in SHOWN],
        "mira": [[place[label], stars] for label, stars in MIRA.items()],
    }


def as_script(model: dict[str, Any]) -> str:
    """A classic script, since a page on the disk may not fetch a file of numbers."""
    text = json.dumps(model, ensure_ascii=True, separators=(",", ":"))
    text = text.replace("</", "<\\/")
    return f"window.METAREC_DEMO = {text};\n"


def read_script(path: Path) -> dict[str, Any]:
    """The model in a script that `as_script` wrote."""
    text = path.read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text.partition("=")[2].rstrip().rstrip(";"))
    return found


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


def key(root: Path) -> str:
    """Hash of what decides the numbers: the package, the requirements, this file."""
    return hash_of(root, root / "book" / "_ext" / "demo.py")


def train_on_movielens() -> dict[str, Any]:
    """The page's model, from all users of MovieLens-100K."""
    from metarec.data import load_movielens_100k

    model = learn(load_movielens_100k(progress=False))
    return model | chosen(model)


def kept(root: Path, make: Callable[[], dict[str, Any]] = train_on_movielens) -> Path:
    """The script in the cache, made if the package has changed since."""
    path = root / "_build" / ".demo" / f"{key(root)}.js"
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
