"""Answers to the project, your own recommender."""

from answers import Answer

READ = "def read_ratings(path, columns, scale):\n"
ERRORS = "def user_errors(predictor, histories, users, sizes=(0, 5, 10)):\n"
EVALUATE = "def evaluate(fit, settings, histories, split, sizes=(0, 5, 10)):\n"
MINE = "def my_recommender(histories, users, setting=3.0):\n"
ROW = "def leaderboard_row(name, errors, rival, k):\n"

ITEM_MEAN_ONLY = """\
    offset = ItemMean.fit(histories, users).offset

    class Mine:
        def predict(self, support, x):
            return offset[x]

    return Mine()
"""

BIASES = """\
    offset = ItemMean.fit(histories, users).offset

    class Mine:
        def predict(self, support, x):
            rest = torch.where(support.mask, support.y - offset[support.x], 0.0)
            own = rest.sum(-1) / (support.mask.sum(-1) + setting)
            return offset[x] + own[:, None]

    return Mine()
"""

POPULAR = """\
    _, item, rating = histories.ratings_of(users)
    likes = torch.bincount(item[rating >= 4], minlength=histories.n_items)

    class Mine:
        def predict(self, support, x):
            return (likes[x] + 0.5).log()

    return Mine()
"""

TOGETHER = """\
    # Popularity, and how much oftener than by chance an item is chosen with one that
    # this user chose.
    user, item, rating = histories.ratings_of(users)
    chosen = torch.zeros(len(users), histories.n_items)
    liked = torch.zeros(len(users), histories.n_items)
    chosen[user, item], liked[user, item] = 1.0, (rating >= 4).float()
    by_chance = chosen.sum(0)[:, None] * liked.sum(0) / len(users)
    lift = ((chosen.T @ liked + 20) / (by_chance + 20)).log()
    popular = (liked.sum(0) + 0.5).log()

    class Mine:
        def predict(self, support, x):
            here = support.mask.float()
            own = torch.zeros(len(x), histories.n_items).scatter_add(1, support.x, here)
            return (popular + own @ lift).gather(1, x)

    return Mine()
"""
LISTS = 'GOAL = "lists"\n\n\n' + MINE

WRONG = {
    "NaN dropped silently": Answer(
        edits={
            "read-ratings": (
                "table = pd.read_csv(path)",
                "table = pd.read_csv(path).dropna()",
            )
        },
        loses=("part-1",),
        says="dropped or merged silently",
    ),
    "duplicates averaged": Answer(
        edits={
            "read-ratings": (
                "    if table.duplicated(pair).any():\n"
                '        raise ValueError(f"columns {pair}: the same pair stands there '
                'twice")\n',
                "    table = table.groupby(pair, as_index=False)[stars].mean()\n",
            )
        },
        loses=("part-1",),
        says="dropped or merged silently",
    ),
    "duplicates of whole rows alone": Answer(
        edits={"read-ratings": ("table.duplicated(pair)", "table.duplicated()")},
        loses=("part-1",),
        says="does not name the column 'guest'",
    ),
    "KeyError for a missing column": Answer(
        edits={"read-ratings": ("if column not in table:", "if False:")},
        loses=("part-1",),
        says="KeyError",
    ),
    "the package's message": Answer(
        cells={
            "read-ratings": READ
            + "    return rating_data(pd.read_csv(path), columns, scale)\n"
        },
        loses=("part-1",),
        says="does not name the column",
    ),
    "ratings clipped to the scale": Answer(
        edits={
            "read-ratings": (
                "    if not scale.contains(numbers.to_numpy()).all():\n",
                "    table[stars] = numbers.clip(scale.low, scale.high)\n"
                "    if False:\n",
            )
        },
        loses=("part-1",),
        says="not noticed",
    ),
    "query in support": Answer(
        edits={"user-errors": ("predict(tasks.support,", "predict(query,")},
        loses=("part-2",),
        says="query is in the support",
    ),
    "pooled RMSE": Answer(
        edits={
            "user-errors": (
                "user_rmse(scores, query.y, query.mask).numpy()",
                "float((scores - query.y)[query.mask].square().mean().sqrt())",
            )
        },
        loses=("part-2",),
        says="pooled",
    ),
    "a query that changes with k": Answer(
        cells={
            "user-errors": ERRORS
            + """\
    from metarec.tasks import Examples
    rows = []
    for user in histories.usable(users):
        _, item, rating = histories.ratings_of(user[None])
        for k in sizes:
            x, y = item[None, :k], rating[None, :k]
            support = Examples(x, y, torch.ones_like(y, dtype=torch.bool))
            score = predictor.predict(support, item[None, k:])[0].clamp(1, 5)
            rmse = (score - rating[k:]).square().mean().sqrt().item()
            rows.append({"user": int(user), "k": k, "rmse": rmse, "n": len(score)})
    return pd.DataFrame(rows)
"""
        },
        loses=("part-2",),
        says="query changes with k",
    ),
    "predictions not clipped": Answer(
        edits={
            "user-errors": (
                "scores = scores.clamp(histories.scale.low, histories.scale.high)",
                "pass",
            )
        },
        loses=("part-2",),
        says="not clipped",
    ),
    "fitted on all users": Answer(
        edits={
            "evaluate": (
                "fit(sealed, split.train, setting)",
                "fit(histories, torch.cat([split.train, split.validation, split.test])"
                ", setting)",
            )
        },
        loses=("part-2",),
        says="given test users",
    ),
    "not sealed": Answer(
        edits={"evaluate": ("histories.seal(split.test)", "histories")},
        loses=("part-2",),
        says="hand out ratings of test users",
    ),
    "setting chosen on test users": Answer(
        edits={
            "evaluate": (
                "user_errors(predictor, sealed, split.validation, sizes)",
                "user_errors(predictor, histories, split.test, sizes)",
            )
        },
        loses=("part-2",),
        says="chosen on the test users",
    ),
    "setting chosen on training users": Answer(
        edits={"evaluate": ("split.validation", "split.train")},
        loses=("part-2",),
        says="chosen on the training users",
    ),
    "refitted with validation users": Answer(
        edits={
            "evaluate": (
                "    errors = user",
                "    fitted[best] = fit(sealed, torch.cat([split.train, "
                "split.validation]), settings[best])\n    errors = user",
            )
        },
        loses=("part-2",),
        says="given validation users",
    ),
    "curve averaged over batches": Answer(
        edits={
            "evaluate": (
                'errors.groupby("k")["rmse"].mean().to_dict()',
                """{
        k: np.mean([
            ((part["rmse"] ** 2 * part["n"]).sum() / part["n"].sum()) ** 0.5
            for start in range(0, len(rows), 4)
            for part in [rows.iloc[start : start + 4]]
        ])
        for k, rows in errors.groupby("k")
    }""",
            )
        },
        loses=("part-2",),
        says="over batches",
    ),
    "curve pooled over ratings": Answer(
        edits={
            "evaluate": (
                'errors.groupby("k")["rmse"].mean().to_dict()',
                """{
        k: ((rows["rmse"] ** 2 * rows["n"]).sum() / rows["n"].sum()) ** 0.5
        for k, rows in errors.groupby("k")
    }""",
            )
        },
        loses=("part-2",),
        says="pooled",
    ),
    "every setting looked at on test users": Answer(
        edits={
            "evaluate": (
                "    best = ",
                "    every = [user_errors(p, histories, split.test, sizes) "
                "for p in fitted]\n    best = ",
            )
        },
        loses=("part-2",),
        says="one look, at the end",
    ),
    "the support is ignored": Answer(
        cells={"my-recommender": MINE + ITEM_MEAN_ONLY},
        loses=("part-3",),
        says="support is ignored",
    ),
    "a bias alone": Answer(
        cells={"my-recommender": MINE + BIASES},
        loses=("part-3",),
        says="18% are asked for",
    ),
    "the package's own predictor": Answer(
        cells={
            "my-recommender": MINE
            + """\
    from metarec.factors import GaussianFactorModel
    return GaussianFactorModel.fit(histories, users, 2)
"""
        },
        loses=("part-3",),
        says="package's own GaussianFactorModel",
    ),
    "item means of everybody, read past the seal": Answer(
        edits={
            "my-recommender": (
                "ItemMean.fit(histories, users).offset",
                "torch.zeros(histories.n_items).index_add_(0, histories.item, "
                "histories.rating) / torch.bincount(histories.item, "
                "minlength=histories.n_items).clamp(min=1)",
            )
        },
        loses=("part-3",),
        says="depends on ratings of test users",
    ),
    "fitted on every user": Answer(
        edits={
            "my-recommender": (
                "dim, offset = 3,",
                "users = torch.arange(len(histories.start) - 1)\n    dim, offset = 3,",
            )
        },
        loses=("part-3",),
        says="sealed",
    ),
    "padding counted": Answer(
        edits={
            "my-recommender": (
                "torch.where(support.mask[..., None], z[support.x], 0.0)",
                "z[support.x]",
            )
        },
        loses=("part-3",),
        says="false mask",
    ),
    "a goal that is none": Answer(
        edits={"my-recommender": ('"stars"  #', '"clicks"  #')},
        loses=("part-3",),
        says='should be "stars" or "lists"',
    ),
    "predicted stars as a list": Answer(
        edits={"my-recommender": ('"stars"  #', '"lists"  #')},
        loses=("part-3",),
        says="2% are asked for",
    ),
    "popularity as a list": Answer(
        cells={"my-recommender": LISTS + POPULAR},
        loses=("part-3",),
        says="support is ignored",
    ),
    "a list from everybody's choices, read past the seal": Answer(
        cells={
            "my-recommender": LISTS
            + TOGETHER.replace(
                "histories.ratings_of(users)",
                "torch.arange(len(histories.start) - 1).repeat_interleave("
                "histories.start.diff()), histories.item, histories.rating",
            ).replace("len(users)", "len(histories.start) - 1")
        },
        loses=("part-3",),
        says="depends on ratings of test users",
    ),
    "a list with padding counted": Answer(
        cells={
            "my-recommender": LISTS
            + TOGETHER.replace("support.mask.float()", "torch.ones(support.mask.shape)")
        },
        loses=("part-3",),
        says="false mask",
    ),
    "unpaired interval": Answer(
        edits={
            "leaderboard-row": (
                "    low, high = np.quantile(gap[drawn].mean(1), [0.025, 0.975])",
                """\
    a, b = mine.to_numpy(), other.to_numpy()
    again = np.random.default_rng(1).integers(len(gap), size=(4000, len(gap)))
    means = a[drawn].mean(1) - b[again].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])""",
            )
        },
        loses=("part-4",),
        says="unpaired",
    ),
    "bootstrap over ratings": Answer(
        edits={
            "leaderboard-row": (
                "    gap = (mine - other).to_numpy()\n",
                "    n = errors[errors['k'] == k].set_index('user')['n'].sort_index()\n"
                "    gap = np.repeat((mine - other).to_numpy(), n)\n",
            )
        },
        loses=("part-4",),
        says="resamples ratings in place of users",
    ),
    "verdict from the point estimate": Answer(
        edits={
            "leaderboard-row": (
                '"better" if high < 0 else "worse" if low > 0 else "tie"',
                '"better" if gap.mean() < 0 else "worse"',
            )
        },
        loses=("part-4",),
        says="not from the\\s+point estimate",
    ),
    "sign turned round": Answer(
        edits={"leaderboard-row": ("(mine - other)", "(other - mine)")},
        loses=("part-4",),
        says="sign is turned round",
    ),
    "users without a partner dropped": Answer(
        cells={
            "leaderboard-row": ROW
            + """\
    mine, other = (t[t["k"] == k].set_index("user")["rmse"] for t in (errors, rival))
    gap = (mine - other).to_numpy()
    gap = gap[~np.isnan(gap)]
    drawn = np.random.default_rng(0).integers(len(gap), size=(4000, len(gap)))
    low, high = np.quantile(gap[drawn].mean(1), [0.025, 0.975])
    verdict = "better" if high < 0 else "worse" if low > 0 else "tie"
    return dict(name=name, k=k, rmse=mine.mean(), difference=gap.mean(), low=low,
                high=high, verdict=verdict)
"""
        },
        loses=("part-4",),
        says="users without a partner",
    ),
    "where the users lie": Answer(
        edits={"leaderboard-row": ("gap[drawn].mean(1)", "gap")},
        loses=("part-4",),
        says="95% of the users lie",
    ),
    "paired by row": Answer(
        cells={
            "leaderboard-row": ROW
            + """\
    a, b = (t[t["k"] == k]["rmse"].to_numpy() for t in (errors, rival))
    if set(errors[errors["k"] == k]["user"]) != set(rival[rival["k"] == k]["user"]):
        raise ValueError("not the same users")
    gap = a - b
    drawn = np.random.default_rng(0).integers(len(gap), size=(4000, len(gap)))
    low, high = np.quantile(gap[drawn].mean(1), [0.025, 0.975])
    verdict = "better" if high < 0 else "worse" if low > 0 else "tie"
    return dict(name=name, k=k, rmse=a.mean(), difference=gap.mean(), low=low,
                high=high, verdict=verdict)
"""
        },
        loses=("part-4",),
        says="paired by their",
    ),
}

UNUSUAL = {
    "one user at a time, in numpy": Answer(
        cells={
            "user-errors": ERRORS
            + """\
    from metarec.tasks import Examples
    rows = []
    for k in sizes:
        for user in histories.usable(users):
            _, item, rating = histories.ratings_of(user[None])
            x, y = item[None], rating[None]
            s = slice(0, k)
            support = Examples(x[:, s], y[:, s], torch.ones(1, k, dtype=torch.bool))
            asked = x[:, histories.reserved :]
            guess = np.asarray(predictor.predict(support, asked).detach())[0]
            guess = np.clip(guess, histories.scale.low, histories.scale.high)
            square = (guess - rating[histories.reserved :].numpy()) ** 2
            rows.append([user.item(), k, float(np.sqrt(square.mean())), square.size])
    return pd.DataFrame(rows, columns=["user", "k", "rmse", "n"])
""",
            "leaderboard-row": ROW
            + """\
    both = errors.merge(rival, on=["user", "k"], how="outer", suffixes=("", "_rival"))
    both = both[both["k"] == k]
    if both[["rmse", "rmse_rival"]].isna().any(axis=None):
        raise ValueError("different users")
    d = torch.tensor((both["rmse"] - both["rmse_rival"]).to_numpy())
    draw = torch.multinomial(torch.ones(len(d)), 2000 * len(d), replacement=True)
    means = d[draw].view(2000, -1).mean(1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975]).double())
    verdict = "tie"
    if low > 0:
        verdict = "worse"
    elif high < 0:
        verdict = "better"
    return {"verdict": verdict, "name": name, "k": k, "low": low, "high": high,
            "difference": d.mean(), "rmse": both["rmse"].mean(), "users": len(d)}
""",
        }
    ),
    "the csv module, a loop over rows": Answer(
        cells={
            "read-ratings": READ
            + """\
    import csv
    u, i, r = (columns[role] for role in ("user", "item", "rating"))
    met, rows = set(), []
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        for name in (u, i, r):
            if name not in reader.fieldnames:
                raise ValueError(f"no {name}")
        for line in reader:
            for name in (u, i, r):
                if line[name] == "":
                    raise ValueError(f"nothing in {name}: {line}")
            try:
                number = float(line[r])
            except ValueError:
                raise ValueError(f"{r} is {line[r]!r}") from None
            if not scale.low <= number <= scale.high:
                raise ValueError(f"{r} is {number}")
            if (line[u], line[i]) in met:
                raise ValueError(f"twice: {u} {line[u]}, {i} {line[i]}")
            met.add((line[u], line[i]))
            rows.append({"user": line[u], "item": line[i], "rating": number})
    return rating_data(pd.DataFrame(rows), scale=scale)
""",
            "evaluate": EVALUATE
            + """\
    best = None
    for setting in settings:
        found = fit(histories.seal(split.test), split.train, setting)
        table = user_errors(found, histories, split.validation, sizes)
        score = sum(table["rmse"]) / len(table)
        if best is None or score < best[0]:
            best = score, setting
    found = fit(histories.seal(split.test), split.train, best[1])
    table = user_errors(found, histories, split.test, sizes)
    table = table.sample(frac=1, random_state=0)
    return [best[1], table, {k: table[table.k == k].rmse.mean() for k in sizes}]
""",
        }
    ),
    "a Gaussian posterior of the package's item vectors": Answer(
        cells={
            "my-recommender": """\
from metarec.factors import GaussianFactorModel


class Recommender:
    def __init__(self, histories, users, setting=3.0):
        found = GaussianFactorModel.fit(histories, users, 2)
        self.q = torch.cat([found.q, torch.ones(len(found.q), 1)], 1).double()
        self.offset = found.offset
        self.mean, self.cov = found.user_mean, found.user_covariance
        self.noise = found.noise

    def one(self, x, y, mask, asked):
        x, y = x[mask], y[mask].double()
        phi = self.q[x]
        s = phi @ self.cov @ phi.T + self.noise * torch.eye(len(x))
        gain = torch.linalg.solve(s, phi @ self.cov).T
        w = self.mean + gain @ (y - self.offset[x] - phi @ self.mean)
        return self.offset[asked] + self.q[asked] @ w

    def predict(self, support, x):
        rows = zip(support.x, support.y, support.mask, x)
        return torch.stack([self.one(*row) for row in rows])


def my_recommender(histories, users, setting=3.0):
    return Recommender(histories, users, setting)
"""
        }
    ),
    "neighbours": Answer(
        cells={
            "my-recommender": MINE
            + """\
    offset = ItemMean.fit(histories, users).offset.numpy()
    user, item, rating = (t.numpy() for t in histories.ratings_of(users))
    rest = np.zeros((len(users), histories.n_items))
    rest[user, item] = rating - offset[item]
    # How items go together: a Gaussian process over items.
    kernel = rest.T @ rest / np.maximum((rest != 0).T.astype(float) @ (rest != 0), 1)
    values, vectors = np.linalg.eigh(kernel)
    kernel = (vectors * np.clip(values, 0, None)) @ vectors.T

    def predict(support, x):
        scores = np.zeros(x.shape)
        for row in range(len(x)):
            own = support.mask[row].numpy()
            s, q = support.x[row].numpy()[own], x[row].numpy()
            error = support.y[row].numpy()[own] - offset[s]
            gram = kernel[np.ix_(s, s)] + 0.3 * np.eye(len(s))
            weights = np.linalg.solve(gram, error)
            scores[row] = offset[q] + kernel[np.ix_(q, s)] @ weights
        return torch.from_numpy(scores)

    import types
    return types.SimpleNamespace(predict=predict)
"""
        }
    ),
    "a list, by counts of what is chosen together": Answer(
        cells={"my-recommender": LISTS + TOGETHER}
    ),
}
