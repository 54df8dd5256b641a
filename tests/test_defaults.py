"""What a caller leaves out, and what tables are called: held to a committed list.

``defaults.json`` holds every default of every public function, class and method, every
attribute of a class and every constant. Whoever changes one on purpose writes the list
anew, ``python tests/test_defaults.py``, and sees the change in the diff.
"""

import dataclasses
import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch

import metarec
from metarec.data import RatingData
from metarec.evaluation import Fold, Protocol, cold_start, rank_catalogue, run_methods
from metarec.evaluation.leaderboard import Leaderboard
from metarec.factors import ItemMean
from metarec.recommender import MetaRecommender
from metarec.tasks import UserHistories
from metarec.training import TrainingConfig

COMMITTED = Path(__file__).with_name("defaults.json")
PLAIN = bool | int | float | str | tuple | list | None | torch.Tensor


def plain(value: object) -> str | None:
    """A value that can be compared as a text."""
    text = repr(value) if isinstance(value, PLAIN) else None
    return None if text is None or len(text) > 200 else text


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(metarec.__path__, "metarec."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def of_call(call: Callable[..., object]) -> dict[str, str]:
    """The defaults of a function, by the names of its parameters."""
    found = {}
    for name, parameter in inspect.signature(call).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            found[name] = repr(parameter.default)
    return found


def of_class(kind: type) -> dict[str, str]:
    """Attributes of the class itself; the fields of its instances are no part of it."""
    fields = {f.name for f in dataclasses.fields(kind)} if is_data(kind) else set()
    return {
        name: text
        for name, value in vars(kind).items()
        if not name.startswith("_") and name not in fields and (text := plain(value))
    }


def is_data(kind: type) -> bool:
    return dataclasses.is_dataclass(kind)


def has_own_call(kind: type) -> bool:
    """Whether a class says itself how it is made."""
    own = is_data(kind) or "__init__" in vars(kind)
    return own and not getattr(kind, "_is_protocol", False)


def defaults() -> dict[str, dict[str, str]]:
    """Everything that may be left out, by where it stands."""
    found: dict[str, dict[str, str]] = {}
    for module in modules():
        own = {
            name: value
            for name, value in vars(module).items()
            if getattr(value, "__module__", None) == module.__name__
        }
        constants = re.findall(r"^([A-Z_\d]+)\b.* = ", inspect.getsource(module), re.M)
        found[module.__name__] = {
            name: text
            for name in constants
            if (text := plain(getattr(module, name, ...)))
        }
        for name, value in own.items():
            place = f"{module.__name__}.{name}"
            if inspect.isfunction(value):
                found[place] = of_call(value)
            elif inspect.isclass(value):
                found[place] = of_class(value)
                if has_own_call(value):
                    found[place] |= of_call(value)
                for method, code in inspect.getmembers(value, callable):
                    if method in vars(value) and not method.startswith("_"):
                        found[f"{place}.{method}"] = of_call(code)
    return {place: found[place] for place in sorted(found) if found[place]}


def test_defaults_are_those_that_are_committed() -> None:
    committed = json.loads(COMMITTED.read_text(encoding="utf-8"))
    assert defaults() == committed, "on purpose? then: python tests/test_defaults.py"


def test_a_default_that_moves_is_seen() -> None:
    def rank(at: int = 10, exact: bool = False, *, name: str | None = None) -> None:
        pass

    class Settings:
        rate = 0.5
        hidden: int

    assert of_call(rank) == {"at": "10", "exact": "False", "name": "None"}
    assert of_class(Settings) == {"rate": "0.5"}
    found = defaults()
    assert found["metarec.training.TrainingConfig"]["patience"] == "10"
    assert found["metarec.tasks.UserHistories"]["reserved"] == "15"
    assert found["metarec.models.Softmax"]["like"] == "4.0"


ERRORS = ["user", "k", "rmse", "mae", "unclipped", "n"]
RANKS = ["user", "k", "ndcg", "recall", "hit", "overlap", "n_relevant"]
RANKS += ["chance_ndcg", "chance_recall", "chance_hit", "ceiling_recall", "coverage"]
SUMMARY = ["method", "k", "rmse", "sd_folds", "mae", "unclipped", "pooled_rmse"]
SUMMARY += ["difference", "low", "high"]


@pytest.fixture(scope="module")
def histories(data: RatingData) -> UserHistories:
    return UserHistories(data)


def test_columns_of_the_protocols(data: RatingData, histories: UserHistories) -> None:
    model = ItemMean.fit(histories, torch.arange(150))
    users = torch.arange(150, 200)
    assert list(cold_start(model, histories, users, (1,))) == ERRORS
    assert list(rank_catalogue(model, histories, users, (1,))) == RANKS
    assert list(Fold(data).judge(model, (1,))) == [*ERRORS, "fold"]


def test_columns_of_the_leaderboard(data: RatingData, tmp_path: Path) -> None:
    errors = run_methods(data, ["item mean"], Protocol(folds=2), tmp_path, False)
    costs = ["protocol", "method", "fit_seconds", "ms_per_user"]
    assert list(errors) == [*ERRORS, "fold", *costs]
    board = Leaderboard(errors, "item mean")
    assert list(board.summary) == SUMMARY
    assert list(board.costs) == costs[2:]
    assert list(board.wide()) == sorted(errors["k"].unique())
    assert list(board.per_user(5)) == ["item mean"]
    assert board.per_user(5).index.names == ["fold", "user"]


def test_columns_of_a_recommender(data: RatingData) -> None:
    config = TrainingConfig(epochs=1)
    everybody = MetaRecommender(dim=2, config=config).fit(data, progress=False)
    person = everybody.adapt({3: 5, 7: 1})
    assert list(person.recommend(2)) == ["item_id", "title", "score"]
    assert list(person.explain(5)) == ["item_id", "title", "rating", "effect"]
    table = everybody.recommend_all({"a": {3: 5}, "b": [(7, 1)]}, n=2)
    assert list(table) == ["user_id", "rank", "item_id", "title", "score"]


def test_a_fold_judges_at_the_sizes_that_are_asked_for(
    data: RatingData, histories: UserHistories
) -> None:
    model = ItemMean.fit(histories, torch.arange(150))
    fold = Fold(data, 2, Protocol(folds=4))
    table = fold.judge(model, sizes=(0, 3))
    assert table["k"].unique().tolist() == [0, 3]
    assert table["fold"].unique().tolist() == [2]
    assert sorted(table["user"].unique()) == fold.split.test.tolist()
    assert fold.judge(model)["k"].unique().tolist() == [0, 1, 2, 3, 5, 10, 15]
    few = Fold(data, 0, Protocol(reserved=5))
    assert few.judge(model)["k"].unique().tolist() == [0, 1, 2, 3, 5]
    asked = pd.concat([cold_start(model, fold.histories, fold.split.test, (0, 3))])
    assert np.array_equal(table["rmse"], asked["rmse"])


if __name__ == "__main__":
    text = json.dumps(defaults(), indent=1, ensure_ascii=False)
    COMMITTED.write_text(text + "\n", encoding="utf-8")
