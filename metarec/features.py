"""Side information: what is known of items and users beside their ratings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metarec.data import Catalogue

__all__ = ["UserFeatures", "item_feature_names", "item_features"]


def item_feature_names(data: Catalogue) -> list[str]:
    """Name the columns of `item_features`: the genres in order, then the year.

    A data set without genres and years has no such column.

    Parameters
    ----------
    data
        Ratings with a table of items.

    Returns
    -------
    list[str]
        The names, F of them.

    Plumbing
    --------
    Labels for plots of attention.
    """
    genres = sorted({genre for row in data.items["genres"] for genre in row})
    return genres + ["year"] * bool(data.items["year"].notna().any())


def item_features(data: Catalogue) -> Tensor:
    """Genres as 0 and 1, and the year in units of 15 years: shape (n_items, F).

    A year that is not known counts as the mean year. ``F = 0`` without side
    information.

    Parameters
    ----------
    data
        Ratings with a table of items.

    Returns
    -------
    Tensor
        Features, shape (n_items, F).

    Plumbing
    --------
    Side information for the Gaussian factor model and the rating models.
    """
    names = item_feature_names(data)
    table = np.zeros((data.n_items, len(names)))
    for column, name in enumerate(names):
        table[:, column] = [name in genres for genres in data.items["genres"]]
    if names and names[-1] == "year":
        # In units of 15 years a year has about the spread of a genre's 0 and 1.
        year = data.items["year"].astype("float64").to_numpy(float, na_value=np.nan)
        table[:, -1] = np.where(np.isnan(year), 0, year - np.nanmean(year)) / 15
    return torch.from_numpy(table)


@dataclass(frozen=True)
class UserFeatures:
    """Age, gender and occupation as numbers, 0 where nothing is known.

    Age is in units of 15 years, gender and occupation are one column for each value;
    each column is centred by its ``mean`` over the users that it was fitted on, so that
    a row of zeros stands for somebody of whom nothing is known. A gender or occupation
    that they do not have counts as not known.

    Parameters
    ----------
    names
        Names of the columns, F of them.
    mean
        Mean of each column over the users that it was fitted on.

    Plumbing
    --------
    Side information for the rating models.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]

    @classmethod
    def fit(cls, users: pd.DataFrame) -> Self:
        """Take the vocabulary and the means from a table of users.

        Parameters
        ----------
        users
            Table of users with age, gender and occupation, as far as known.

        Returns
        -------
        UserFeatures
            The fitted object.
        """
        names = ["age"] * ("age" in users)
        for column in ("gender", "occupation"):
            if column in users:
                names += [f"{column}={value}" for value in sorted(set(users[column]))]
        plain = cls(tuple(names), (0.0,) * len(names))
        return cls(plain.names, tuple(plain.encode(users).double().mean(0).tolist()))

    def encode(self, users: pd.DataFrame) -> Tensor:
        """Rows of numbers, shape (n, F).

        Parameters
        ----------
        users
            Table of users.

        Returns
        -------
        Tensor
            Features, shape (n, F).
        """
        table = np.zeros((len(users), len(self.names)))
        for at, (name, mean) in enumerate(zip(self.names, self.mean, strict=True)):
            column, _, value = name.partition("=")
            if column not in users:
                continue
            raw = (users[column] == value) if value else users[column] / 15
            # Whoever has a value that nobody had when the features were learned keeps
            # the zeros of somebody of whom nothing is known.
            # A value that nobody had while learning counts as not known.
            named = (f"{column}=" + users[column].astype(str)).isin(self.names)
            number = raw.to_numpy(dtype=float) - mean
            table[:, at] = np.where(named, number, 0) if value else number
        return torch.from_numpy(table).float()

    def encode_one(self, known: Mapping[str, Any] | None) -> Tensor:
        """One row (1, F) for a user of whom some columns, or none, are known.

        Parameters
        ----------
        known
            Column to value for what is known of the user.

        Returns
        -------
        Tensor
            Features, shape (1, F).

        Raises
        ------
        ValueError
            For a column that the features do not have.
        """
        known = known or {}
        columns = {name.partition("=")[0] for name in self.names}
        if unknown := set(known) - columns:
            raise ValueError(
                f"nothing was learned about {sorted(unknown)}: a user may be described "
                f"by {sorted(columns) or 'nothing'} here"
            )
        return self.encode(pd.DataFrame([known], index=[0]))
