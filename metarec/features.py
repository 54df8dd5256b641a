"""Side information: what is known of items and users beside their ratings."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metarec.data import Catalogue

__all__ = ["UserFeatures", "item_feature_names", "item_features"]

_MOST = 100  # words of one column that become features
_NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal", "boolean")
# In units of 15 years a year or an age has about the spread of a word's 0 and 1.
_UNITS = {"age": 15.0, "year": 15.0}


def item_feature_names(data: Catalogue) -> list[str]:
    """Name the columns of `item_features`: genres in order, the year, other columns.

    A data set without genres, years and other columns has no such column.

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
    names = UserFeatures.fit(known_of_items(data)).names
    return [name.removeprefix("genres=") for name in names]


def item_features(data: Catalogue) -> Tensor:
    """What is known of each item as numbers: shape (n_items, F).

    Genres and the words of other columns are 0 and 1. The year is in units of 15 years,
    a number of another column in standard deviations, both from the mean: what is not
    known counts as the mean. ``F = 0`` without side information. Of a column's words
    the 100 most frequent count; a warning names columns that are of no use.

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
    items = known_of_items(data)
    features = UserFeatures.fit(items)
    words = ["=" in name for name in features.names]
    centred = features.known(items) - np.where(words, 0, features.mean)
    return torch.from_numpy(np.nan_to_num(centred))


def known_of_items(data: Catalogue) -> pd.DataFrame:
    """Select the columns of items that may be features, genres and year first.

    Parameters
    ----------
    data
        Ratings with a table of items.

    Returns
    -------
    pd.DataFrame
        One row for each item, without label and title.

    Plumbing
    --------
    What `item_features` and `item_histories` look at.
    """
    described = data.items.drop(columns=["item_id", "title"])
    return described[["genres", "year", *described.columns.drop(["genres", "year"])]]


@dataclass(frozen=True)
class UserFeatures:
    """Age, gender, occupation and what else is known as numbers, 0 where nothing is.

    Numbers are in standard deviations, age in units of 15 years; words, such as gender
    and occupation, are one column for each. Each column is centred by its ``mean`` over
    those of whom it is known among the users that it was fitted on, so that a row of
    zeros stands for somebody of whom nothing is known. A word that they do not have
    counts as not known.

    Parameters
    ----------
    names
        Names of the columns, F of them.
    mean
        Mean of each column, in its units, over the users that it was fitted on.
    unit
        Unit of each column; 15 for all where a file of version 0.1 has none.

    Plumbing
    --------
    Side information for the rating models.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    unit: tuple[float, ...] = ()

    @classmethod
    def fit(cls, users: pd.DataFrame) -> Self:
        """Take the vocabulary, the units and the means from a table of users.

        A warning names the columns that are of no use: words, dates among them, that
        differ from row to row. A title is a name.

        Parameters
        ----------
        users
            Table of users with what is known of them.

        Returns
        -------
        UserFeatures
            The fitted object.
        """
        unit: dict[str, float] = {}
        useless = []
        described = users.drop(columns=["user_id", "title"], errors="ignore")
        for column, known in described.dropna(axis=1, how="all").items():
            number = pd.api.types.infer_dtype(known) in _NUMBERS
            if number and column not in ("gender", "occupation"):
                spread = float(np.nanstd(_numbers(known)))
                unit[str(column)] = _UNITS.get(str(column), spread or 1.0)
                continue
            count = _words(known).value_counts()
            kept = count[:_MOST]
            if kept[kept > 1].sum() >= count.sum() / 2:  # rows share their words
                unit |= {f"{column}={word}": 1.0 for word in sorted(kept.index)}
            else:
                useless.append(column)
        if useless:
            text = f"{useless} are no features: they hold neither numbers nor words "
            text += "that rows share; group their values, or leave them out"
            warnings.warn(text, stacklevel=2)
        plain = cls((*unit,), (0.0,) * len(unit), (*unit.values(),))
        mean = np.nanmean(plain.known(users), 0) if unit else np.zeros(0)
        return replace(plain, mean=tuple(mean.tolist()))

    def known(self, users: pd.DataFrame) -> np.ndarray:
        """Rows of numbers that are not centred, NaN for what is not known: (n, F).

        Parameters
        ----------
        users
            Table of users.

        Returns
        -------
        np.ndarray
            Features, shape (n, F).

        Raises
        ------
        ValueError
            For words in a column of numbers.
        """
        table = np.full((len(users), len(self.names)), np.nan)
        parts = pd.DataFrame([name.partition("=") for name in self.names])
        for column, part in parts.groupby(0, sort=False) if self.names else ():
            if column not in users:
                continue
            at, words = part.index.to_numpy(), part[2].tolist()
            if words == [""]:
                unit = self.unit[at[0]] if self.unit else _UNITS["age"]
                table[:, at[0]] = _numbers(users[column]) / unit
                continue
            # Whoever has none of the words that were learned is not known.
            own = _words(users[column])
            has = pd.get_dummies(own[own.isin(words)]).groupby(level=0).max()
            has = has.reindex(columns=words, fill_value=False)
            table[has.index.to_numpy()[:, None], at] = has
        return table

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
        return torch.from_numpy(np.nan_to_num(self.known(users) - self.mean)).float()

    def encode_one(self, known: Mapping[str, Any] | None) -> Tensor:
        """One row (1, F) for a user of whom some columns, or none, are known.

        Parameters
        ----------
        known
            Column to value for what is known of the user; None and NaN are not known.

        Returns
        -------
        Tensor
            Features, shape (1, F).

        Raises
        ------
        ValueError
            For a column that the features do not have, or a word for a number.
        """
        if not known:
            return torch.zeros(1, len(self.names))
        columns = {name.partition("=")[0] for name in self.names}
        if unknown := set(known) - columns:
            hint = f"a user may be described by {sorted(columns) or 'nothing'} here"
            raise ValueError(f"nothing was learned about {sorted(unknown)}: {hint}")
        return self.encode(pd.DataFrame([known], index=[0]))


def _numbers(values: pd.Series) -> np.ndarray:
    """The values as numbers, NaN for what is not known or not finite."""
    try:
        numbers = pd.to_numeric(values).to_numpy(float, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{values.name} should be a number: {error}") from error
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _words(values: pd.Series) -> pd.Series:
    """The words of all rows, the row from 0 as index; a row may hold several."""
    rows = values.astype(object).reset_index(drop=True)
    plain = rows.map(lambda v: [v] if isinstance(v, str) or not np.iterable(v) else v)
    words = plain.map(list).explode().dropna().astype(str).str.removesuffix(".0")
    return words[words != ""]
