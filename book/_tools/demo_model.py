"""What the page "Teach it your taste" is made from: three systems, as plain numbers.

The build of the site trains them, and ``benchmarks/demo_lists.py`` judges those that
make lists.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from metarec.data import load_movielens_100k
from metarec.factors import WarmStart
from metarec.features import item_features
from metarec.learners.in_context import MOST
from metarec.meta import MetaLearner
from metarec.systems import (
    Parts,
    System,
    default_config,
    fit_system,
    hold_out,
    item_vectors,
)
from metarec.tasks import UserHistories
from metarec.validation import validation_score

DIM = 8  # of a film's vector for lists, genres apart
EPOCHS = {"stars": 12, "lists": 25}  # at most
MIN_RATINGS = 50  # of a film that the page knows
DIGITS = 4

# By the labels of MovieLens-100K.
STARTERS = [50, 174, 204, 71, 168, 216, 483, 313, 127, 56, 98, 100]
SHOWN = [210, 95, 82, 134, 179, 288]
MIRA = {50: 5, 172: 5, 181: 4, 174: 5, 56: 2, 98: 2, 100: 1, 204: 5, 71: 4, 127: 3}
# The start that was not meta-learned: a zero head and the rate of the textbooks.
PLAIN_RATE = 0.1

ARTICLE = re.compile(
    r"^(?P<name>.+), (?P<article>The|A|An|Il|La|Le|Les|El|Das|Der|Die)(?= \(|$)"
)

Group = tuple[UserHistories, Tensor, Tensor, Tensor]
"""Histories, users to train on, users to validate on, features of the items."""


def trained(system: System, warm: WarmStart, group: Group, epochs: int) -> MetaLearner:
    """Train a system on its item vectors, as ``MetaRecommender.fit`` does."""
    histories, train, validation, features = group

    def score(meta: MetaLearner) -> float:
        return validation_score(meta, histories, validation, goal=system.goal)

    # Of a visitor nothing is known beside the ratings.
    parts = replace(Parts.of(histories, train, warm, features), n_profile=0)
    config = replace(default_config(system), epochs=epochs, patience=epochs // 3)
    meta = fit_system(system, parts, histories, train, score, config)
    return meta.requires_grad_(False)


def list_learner(
    group: Group, users: Tensor, epochs: int = EPOCHS["lists"]
) -> MetaLearner:
    """The learner in context, trained on lists.

    The genres of a film, 0 and 1, stand beside its vector: those who like one musical
    seldom like the next, so counts of pairs alone do not know that there are musicals.
    """
    histories, *_, features = group
    warm = item_vectors(histories, users, features, dim=DIM, goal="lists")
    genres = features[:, ((features == 0) | (features == 1)).all(0)]
    factors = torch.cat([warm.factors, genres.to(warm.factors)], 1)
    warm = replace(warm, factors=factors, implicit=None)
    return trained(System(learner="in-context", goal="lists"), warm, group, epochs)


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
        "most": MOST,
        "scale": plain(lists.scale()["head"]),
        "first": whole(net.first.T, 1000),
        "bias": plain(net.first_bias + moved),
        "last": whole(net.third[:, : 2 * phi.shape[1]].T, 1000),
    }


def learn(data: Any, epochs: dict[str, int] = EPOCHS) -> dict[str, Any]:
    """Train two systems for stars, on the same item vectors, and one for lists.

    Returns what the page needs, as plain numbers.
    """
    users, histories = torch.arange(data.n_users), UserHistories(data)
    train, validation = hold_out(histories, users)
    group = histories, train, validation, item_features(data)
    others = users[~torch.isin(users, validation)]
    warm = item_vectors(histories, others, group[-1])
    gradient, bayesian = System(), System("mf", "meta-sgd", "bayesian")
    descent = trained(gradient, warm, group, epochs["stars"]).prior()
    belief = trained(bayesian, warm, group, epochs["stars"]).prior()
    lists = list_learner(group, others, epochs["lists"])
    count = histories.item_counts(users)
    known = torch.argsort(count, descending=True, stable=True)
    known = known[count[known] >= MIN_RATINGS]
    return {
        "films": films(data.items.assign(ratings=count.numpy()).iloc[known.numpy()]),
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


def films(items: Any) -> list[dict[str, Any]]:
    """What the page says of each film, the most rated first."""
    return [
        {
            "id": int(row.item_id),
            "title": ARTICLE.sub(r"\g<article> \g<name>", row.title),
            "year": int(row.year),
            "genres": ", ".join(row.genres),
            "count": int(row.ratings),
        }
        for row in items.itertuples()
    ]


def plain(numbers: Any) -> Any:
    """A number, or lists of them, rounded to ``DIGITS`` significant digits."""
    if isinstance(numbers, torch.Tensor):
        numbers = numbers.tolist()
    if isinstance(numbers, list):
        return [plain(one) for one in numbers]
    return float(f"{numbers:.{DIGITS}g}")


def whole(tensor: Any, times: int) -> Any:
    """The nearest whole numbers, times so many: a list needs no more, and is short."""
    return (times * tensor).round().int().tolist()


def of_movielens() -> dict[str, Any]:
    """The page's model, from all users of MovieLens-100K, and its films by place."""
    model = learn(load_movielens_100k(progress=False))
    place = {film["id"]: i for i, film in enumerate(model["films"])}
    return model | {
        "starters": [place[label] for label in STARTERS],
        "shown": [place[label] for label in SHOWN],
        "mira": [[place[label], stars] for label, stars in MIRA.items()],
    }
