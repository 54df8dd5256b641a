"""One user's own model: predict, recommend and explain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metarec.learners import Parameters, PosteriorLearner
from metarec.recommender.many import best_unseen, score_items
from metarec.tasks import Examples
from metarec.training import check

if TYPE_CHECKING:
    from metarec.recommender.meta_recommender import MetaRecommender


@dataclass(frozen=True)
class PersonalModel:
    """One user's own model: the shared item side and the weights learned for them.

    Parameters
    ----------
    recommender
        The recommender that it is a part of.
    support
        The user's ratings.
    weights
        The user's own weights.

    Built in
    --------
    full-system
    """

    recommender: MetaRecommender
    support: Examples
    weights: Parameters

    @property
    def head(self) -> Tensor:
        """The user's own w, shape (D,)."""
        return self.weights["head"][0].cpu()

    def score(self, items: Tensor | None = None) -> Tensor:
        """Unclipped scores of the given rows of the item table, or of all: (N,).

        Stars; of a click model the log-odds of a like; of a list model ``log p``, with
        p the probability that the next like is this item, among all.

        Parameters
        ----------
        items
            Rows of the item table, shape (N,); all if not given.

        Returns
        -------
        Tensor
            Scores, shape (N,).
        """
        model = self.recommender.model
        return score_items(model, self.weights, self.support, items)[0].cpu()

    def predict(
        self, item_ids: Sequence[Any] | None = None, return_std: bool = False
    ) -> np.ndarray:
        """Predicted stars, clipped to the scale, of the given items or of all.

        Of a click model the probabilities of a like; of a list model those that the
        next like is this item, which sum to 1 over all.

        ``return_std`` adds the standard deviation of a rating around its unclipped
        prediction, what is not known of the user and the noise together.

        Parameters
        ----------
        item_ids
            Labels of the items, or one label; all if not given.
        return_std
            Whether to return standard deviations as well.

        Returns
        -------
        np.ndarray
            Predictions, shape (N,); with ``return_std`` (2, N), standard deviations in
            the second row.

        Raises
        ------
        UnknownItemError
            For an item that was not trained on.
        ValueError
            If the task-learner has no posterior, or predicts no stars.
        """
        check(return_std=return_std)
        known, scale = self.recommender, self.recommender.scale
        labels = known.items["item_id"].tolist() if item_ids is None else item_ids
        if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
            labels = [labels]
        items = torch.tensor(known.indices(list(labels)), dtype=torch.long)
        score, goal = self.score(items), known.system.goal
        if goal == "stars":
            expected = score.clamp(scale.low, scale.high)
        else:
            expected = score.exp() if goal == "lists" else score.sigmoid()
        if not return_std:
            return expected.numpy()
        if goal != "stars":
            raise ValueError(f"{known.system} predicts no stars that could scatter")
        if not isinstance(learner := known.meta.learner, PosteriorLearner):
            text = f"{known.system} has no posterior, hence no standard deviation: "
            raise ValueError(f'{text}fit a MetaRecommender(learner="bayesian") for one')
        parts = known.model, known.meta.prior(self.support), self.support
        with torch.no_grad():
            x = items[None].to(self.support.x.device)
            _, variance = learner.predictive(*parts, x)
        return np.stack([expected.numpy(), variance[0].sqrt().cpu().numpy()])

    def recommend(
        self, n: int = 10, min_ratings: int = 0, surprise: float = 0.0
    ) -> pd.DataFrame:
        """The ``n`` items with the highest score that the user has not rated.

        What kind of list that is depends on the goal. With "stars" these are items that
        the user would rate highly, if they came to rate them: few may have been chosen
        by anybody. With "clicks" those that they would probably like, and with "lists"
        those that they will most probably choose and like next: the best bets.

        ``surprise`` takes off the score that somebody unknown has: ranked is
        ``score - surprise * score at K = 0``, for lists ``log p(i | user) - surprise
        log p(i)``. 0 are the best bets, 1 is what is more this user's than everybody's.
        ``min_ratings`` leaves out items that fewer training users rated: their scores
        are the least certain. Columns: ``item_id``, title, score (as in `score`, less
        the surprise), best first.

        Parameters
        ----------
        n
            Length of the list.
        min_ratings
            Least number of training ratings of an item on the list.
        surprise
            How much of what everybody gets is taken off, from 0 to 1.

        Returns
        -------
        pd.DataFrame
            Columns item_id, title and score, best first.
        """
        check(n=n, min_ratings=min_ratings, surprise=surprise)
        scores = self.score()[None] - self.recommender.expected(surprise)
        best = best_unseen(scores, self.support, self.recommender.items, n, min_ratings)
        # Picked here: a table that is told its columns takes longer to make.
        return pd.DataFrame({c: best[c] for c in ("item_id", "title", "score")})

    def explain(self, item_id: Any) -> pd.DataFrame:
        """What each rating did to the score of one item, by leaving it out.

        The user is adapted again with each rating left out, all at once. ``effect`` is
        the score with all ratings less the score without this one, in stars, in
        log-odds, or of a list in ``log p``; the strongest comes first. Effects need not
        add up: ratings share what they tell.

        Parameters
        ----------
        item_id
            Label of the item.

        Returns
        -------
        pd.DataFrame
            One row for each rating, the strongest effect first.
        """
        (index,) = self.recommender.indices([item_id])
        known, n = self.recommender, int(self.support.mask.sum())
        # Row i of the batch is the user without rating i, the last one with all.
        left = self.support.each(lambda x: x.expand(n + 1, -1))
        left = replace(left, mask=left.mask.clone().fill_diagonal_(False))
        weights, item = known.meta.adapt(left), torch.tensor([index])
        score = score_items(known.model, weights, left, item)[:, 0].cpu()
        effect = (score[-1] - score[:-1]).numpy()
        rated, stars = (part[0, :n].cpu().numpy() for part in (left.x, left.y))
        table = known.items.iloc[rated % len(known.items)][["item_id", "title"]]
        table = table.assign(rating=stars, effect=effect)
        order = np.argsort(-np.abs(effect), kind="stable")
        return table.iloc[order].reset_index(drop=True)
