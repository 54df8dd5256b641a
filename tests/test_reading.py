"""What people have, read: files of many kinds, tables, feedback without stars."""

import bz2
import gzip
import re
import zipfile

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from metarec.data import RatingData, RatingScale, clicks, rating_data, read_csv
from metarec.data.__main__ import main
from metarec.data.custom import as_ratings, for_goal
from metarec.data.frames import to_frame
from metarec.recommender import MetaRecommender

PAIRS = pd.DataFrame({"user": ["al", "bo", "bo"], "item": [10, 10, 30]})


@pytest.fixture
def write(tmp_path):
    def written(text, name="mine.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return written


def rows(data: RatingData) -> list[list[object]]:
    """Every rating with the labels of its user and item."""
    table = data.ratings
    user = data.users["user_id"].tolist()
    item = data.items["item_id"].tolist()
    columns = (table[column].tolist() for column in table)
    return [[user[u], item[i], r, t] for u, i, r, t in zip(*columns, strict=True)]


# --- labels ---------------------------------------------------------------------------


def test_a_label_is_what_the_file_says(write):
    text = "user,item,rating\nann,01,5\nann,1,4\nbob,9E3,3\nbob,9000,2\n"
    items = read_csv(write(text)).items["item_id"].tolist()
    assert items == ["01", "1", "9000", "9E3"]
    # Also where nothing but the place says which columns are labels.
    data = read_csv(write("01,007,5\n1,7,4\n"), header=False)
    assert data.users["user_id"].tolist() == ["01", "1"]
    assert data.items["item_id"].tolist() == ["007", "7"]
    # Text all over, though one label alone is no number, far down.
    body = "".join(f"u{row},{row},3\n" for row in range(1, 3000))
    mixed = read_csv(write("user,item,rating\n" + body + "u0,12X,3\nu1,2998,3\n"))
    assert mixed.n_items == 3000 and mixed.items["item_id"].map(type).eq(str).all()


def test_labels_are_numbers_where_nothing_is_lost(write):
    data = read_csv(write("user,item,rating\n-3,10,5\n20,9,4\n"))
    assert data.users["user_id"].tolist() == [-3, 20]
    assert data.items["item_id"].tolist() == [9, 10]  # by size, not as text
    long = "12345678901234567890123"
    data = read_csv(write(f"user,item,rating\n1,{long},5\n1,1.0,4\n"))
    assert data.items["item_id"].tolist() == ["1.0", long]
    data = read_csv(write("user,item,rating\n1,1.5,5\n1,1.0,4\n"))
    assert data.items["item_id"].tolist() == ["1.0", "1.5"]


def test_words_that_pandas_takes_for_nothing_are_labels(write):
    data = read_csv(write("user,item,rating\nNA,null,5\nNaN,None,4\n"))
    assert rows(data) == [["NA", "null", 5, 0], ["NaN", "None", 4, 0]]
    with pytest.raises(ValueError, match="row 1: column 'item' is empty"):
        read_csv(write("user,item,rating\na,1,5\na,,4\n"))
    with pytest.raises(ValueError, match="row 1: column 'rating' is empty"):
        read_csv(write("user,item,rating\na,1,5\na,2,NA\n"))


def test_labels_of_tables_meet_as_text_where_one_file_holds_numbers(write):
    ratings = write("user,item,rating\n1,7,5\n2,8,4\n")
    items = write("item_id,title\n7,tea\n8,jam\n8b,pie\n", "items.csv")
    data = read_csv(ratings, items=items)
    assert data.items["item_id"].tolist() == ["7", "8", "8b"]
    assert data.ratings["item"].tolist() == [0, 1]


# --- separators, headers, encodings, kinds of files -----------------------------------

ODD = [
    ("user\titem\trating\na\tb\t3\n", {"sep": "\t"}, r"tab-separated: pass sep='\\t'"),
    ('user;item;rating\n"a";"b";"3"\n', {"sep": ";"}, "semicolon-sep.*pass sep=';'"),
    ("user|item|rating\na|b|3\n", {"sep": "|"}, r"pipe-separated: pass sep='\|'"),
    ("a,b,3\n", {"header": False}, "values, no names: pass header=False"),
    (
        "a::b::3::60\n",
        {"sep": "::", "header": False, "columns": {"timestamp": None}},
        "colon-sep.*sep='::'; the first line.*header=False",
    ),
]


@pytest.mark.parametrize(("text", "how", "cause"), ODD)
def test_an_error_says_how_the_file_is_read(write, text, how, cause):
    with pytest.raises(ValueError, match=rf"mine\.csv: no column 'user'.*{cause}"):
        read_csv(write(text))
    assert rows(read_csv(write(text), **how)) == [["a", "b", 3, 0]]


def test_the_other_way_round(write):
    with pytest.raises(ValueError, match="comma-separated: pass sep=','"):
        read_csv(write("user,item,rating\na,b,3\n"), sep=";")
    with pytest.raises(ValueError, match=r"no column 1 for the item.*pass sep=';'$"):
        read_csv(write("a;b;3\n"), header=False)


def test_encodings(write):
    text = "user,item,rating\nJosé,é,3\n"
    for encoding in ("latin-1", "utf-16"):
        path = write(text, encoding=encoding)
        with pytest.raises(ValueError, match=f"encoding='{encoding}'"):
            read_csv(path)
        assert rows(read_csv(path, encoding=encoding)) == [["José", "é", 3, 0]]
    euro = write("user,item,rating\nann,5 \u20ac,3\n", encoding="cp1252")
    with pytest.raises(ValueError, match="encoding='cp1252'"):
        read_csv(euro)
    assert rows(read_csv(euro, encoding="cp1252")) == [["ann", "5 \u20ac", 3, 0]]
    with pytest.raises(ValueError, match="unknown encoding: klingon"):
        read_csv(path, encoding="klingon")


def test_columns_by_position(write):
    path = write("2,x,a,99\n4,y,b,98\n")
    columns = {"rating": 0, "user": 2, "item": 1}
    assert rows(read_csv(path, columns, header=False))[1] == ["b", "y", 4, 98]
    columns = {"rating": "0", "user": "2", "item": "1", "timestamp": ""}
    assert rows(read_csv(path, columns, header=False))[1] == ["b", "y", 4, 0]
    named = write("stars,user,item\n2,a,x\n")
    assert rows(read_csv(named, {"rating": 0})) == [["a", "x", 2, 0]]
    with pytest.raises(ValueError, match="column 2 stands for two roles"):
        read_csv(path, {"user": 2, "item": 0}, header=False)
    with pytest.raises(ValueError, match="no column None for the user"):
        read_csv(named, {"user": None})


def test_a_line_with_a_value_too_many_moves_no_column(write):
    for text in ("user,item,rating\na,b,3,x\n", "user,item,rating\na,b,3\na,c,3,x\n"):
        with pytest.raises(ValueError, match=r"mine\.csv: .*(Length|Error)"):
            read_csv(write(text))


def test_packed_files_parquet_and_json_lines(tmp_path):
    table = PAIRS.assign(user=["007", "7", "7"], rating=[5, 2, 3], timestamp=[1, 2, 3])
    want = rating_data(table).content_hash()
    text = table.to_csv(index=False).encode()
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text))
    (tmp_path / "a.tsv.bz2").write_bytes(bz2.compress(text.replace(b",", b"\t")))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", text)
    table.to_parquet(tmp_path / "a.parquet")
    table.to_json(tmp_path / "a.jsonl.gz", orient="records", lines=True)
    for path in tmp_path.iterdir():
        data = read_csv(path, sep="\t" if ".tsv" in path.name else ",")
        assert data.content_hash() == want, path
    (tmp_path / "b.parquet").write_bytes(text)
    with pytest.raises(ValueError, match=r"b\.parquet: Could not open Parquet"):
        read_csv(tmp_path / "b.parquet")
    with pytest.raises(FileNotFoundError):
        read_csv(tmp_path / "none.parquet")


def test_a_file_that_is_cut_off(tmp_path):
    text = PAIRS.assign(rating=3).to_csv(index=False).encode() * 9
    for suffix, pack in (("gz", gzip.compress), ("bz2", bz2.compress), ("zip", bytes)):
        path = tmp_path / f"mine.csv.{suffix}"
        path.write_bytes(pack(text)[:-9])
        with pytest.raises(ValueError, match=f"{suffix}: this file cannot be read"):
            read_csv(path)


def test_tables_of_other_libraries(write):
    table = PAIRS.assign(rating=[5, 2, 3])
    path = write(table.to_csv(index=False))
    want = rating_data(table).content_hash()
    others = [pl.DataFrame(table), pa.Table.from_pandas(table), path, str(path)]
    others += [table.to_dict("list"), table.to_dict("records")]
    others += [list(table.itertuples(index=False, name=None))]  # by position
    for other in others:
        assert rating_data(other).content_hash() == want
        assert as_ratings(other).content_hash() == want
    data = rating_data(table, items=pl.DataFrame({"item_id": [30, 10]}))
    assert as_ratings(data) is data and data.items["item_id"].tolist() == [30, 10]
    assert to_frame(table) is table
    with pytest.raises(ValueError, match="the table has no rows"):
        rating_data({"user": [], "item": [], "rating": []})
    for wrong in (None, 3, object()):
        with pytest.raises(ValueError, match="pass a DataFrame"):
            rating_data(wrong)
    with pytest.raises(ValueError, match=r"columns=.* of read_csv and rating_data"):
        as_ratings(PAIRS)


# --- times ----------------------------------------------------------------------------


def times(write, values, **how):
    lines = [f"u,{row},3,{value}\n" for row, value in enumerate(values)]
    text = "user,item,rating,timestamp\n" + "".join(lines)
    return read_csv(write(text), **how).ratings["timestamp"].tolist()


def test_dates_in_text(write):
    iso = ["2021-02-03", "2021-02-03T10:00:01Z", "2021-02-03 12:00:01+02:00"]
    assert times(write, iso) == [1612310400, 1612346401, 1612346401]
    assert times(write, ["Feb 3 2021", "Mar 4 2021"]) == [1612310400, 1614816000]
    assert times(write, ["0001-01-01"]) == [-62135596800]
    # Not one way for one row and another for the next.
    german = ["03.02.2021", "13.02.2021"]
    with pytest.raises(ValueError, match=r"row 1: '13\.02.*time_format='%d\.%m\.%Y'"):
        times(write, german)
    assert times(write, german, time_format="%d.%m.%Y") == [1612310400, 1613174400]
    with pytest.raises(ValueError, match="row 1: '2021-02-05'"):
        times(write, [german[0], "2021-02-05"], time_format="%d.%m.%Y")
    # Where no day is above 12 nothing says which number is the day.
    for either in ("03.02.2021", "03/02/2021"):
        with pytest.raises(ValueError, match=r"row 0: .*either of two days.*%d\.%m"):
            times(write, [either])
    assert times(write, [20210203], time_format="%Y%m%d") == [1612310400]
    assert times(write, german, columns={"timestamp": None}) == [0, 0]


def test_units_of_time(write):
    stamps = [1612345678901, -1500]
    with pytest.raises(ValueError, match=r"row 0: 1612345678901 in.*time_format='ms'"):
        times(write, stamps)
    assert times(write, stamps, time_format="ms") == [1612345678, -2]
    assert times(write, stamps, time_format="s") == stamps
    assert times(write, [1612345678000000], time_format="us") == [1612345678]
    assert times(write, [-86400, 0, 99_999_999_999]) == [-86400, 0, 99_999_999_999]
    with pytest.raises(ValueError, match="row 0: 100000000001 in"):
        times(write, [100_000_000_001])
    with pytest.raises(ValueError, match="row 0: 1e"):
        times(write, [1e300], time_format="s")
    with pytest.raises(ValueError, match="time_format='weeks' is none of 's', 'ms'"):
        times(write, stamps, time_format="weeks")


# --- ratings again, ratings that are none ---------------------------------------------


def test_pairs_that_are_rated_again():
    again = pd.DataFrame(
        [("a", 1, 2, 9), ("a", 1, 5, 4), ("b", 1, 1, 1), ("a", 1, 4, 7)],
        columns=["user", "item", "rating", "timestamp"],
    )
    kept = {how: rows(rating_data(again, duplicates=how)) for how in ("first", "last")}
    assert kept["first"] == [["a", 1, 5, 4], ["b", 1, 1, 1]]
    assert kept["last"] == [["a", 1, 2, 9], ["b", 1, 1, 1]]
    mean = rating_data(again, scale=RatingScale(1, 5, 1), duplicates="mean")
    assert rows(mean)[0] == ["a", 1, pytest.approx(11 / 3), 9]
    assert mean.scale == RatingScale(1, 5)  # a mean of stars is no whole star
    with pytest.raises(ValueError, match="'keep' is none of 'error', 'first', 'last'"):
        rating_data(again, duplicates="keep")


def test_numbers_that_mean_that_there_is_no_rating():
    table = PAIRS.assign(rating=[-1.0, 4.0, 0.0])
    with pytest.raises(
        ValueError, match=r"rating -1 is off.*low, high\); if .*say not_rated=-1"
    ):
        rating_data(table)
    with pytest.raises(ValueError, match=r"rating 9 is off.*\(low, high\)$"):
        rating_data(PAIRS.assign(rating=9))
    assert rows(rating_data(table, not_rated=[-1, 0])) == [["bo", 10, 4, 0]]
    empty = PAIRS.assign(rating=[np.nan, 4, 5])
    assert len(rating_data(empty, not_rated=np.nan).ratings) == 2
    # The row of an error is that of the table, whatever is left out before it.
    words = PAIRS.assign(rating=["-1", "good", "5"])
    with pytest.raises(ValueError, match="row 1: 'good' in 'rating' is not a number"):
        rating_data(words, not_rated=-1)
    with pytest.raises(ValueError, match="no rows"):
        rating_data(PAIRS.assign(rating=0), not_rated=0)
    with pytest.raises(ValueError, match=r"row 0 .*: True in 'rating' is not a number"):
        rating_data(PAIRS.assign(rating=True))


def test_a_scale_is_two_or_three_numbers():
    table = PAIRS.assign(rating=[0.5, 4, 5])
    assert rating_data(table, scale=(0, 5, 0.5)).scale == RatingScale(0, 5, 0.5)
    for scale in ((5,), 5):
        with pytest.raises(ValueError, match=r"scale=\(LOW, HIGH\)"):
            rating_data(table, scale=scale)


def test_one_column_has_one_role():
    with pytest.raises(ValueError, match="'item' stands for two roles"):
        rating_data(PAIRS, {"rating": "item"})
    twice = PAIRS.assign(rating=3).set_axis(["user", "item", "item"], axis=1)
    with pytest.raises(ValueError, match=r"'item' .* occurs twice"):
        rating_data(twice, {"rating": None})
    with pytest.raises(ValueError, match="a user cannot be told from others: unhash"):
        rating_data(PAIRS.assign(user=[[1], [2], [3]], rating=3))


# --- feedback without stars -----------------------------------------------------------


def test_pairs_are_ones_and_clicks_draw_what_was_not_taken():
    rng = np.random.default_rng(0)
    orders = pd.DataFrame(
        {"user": rng.integers(50, size=900), "item": rng.integers(40, size=900)}
    )
    orders["timestamp"] = rng.integers(10**6, size=900)
    stock = pd.DataFrame({"item_id": [*range(41)]})  # 40 is new: nobody has it yet
    data = rating_data(orders, {"rating": None}, items=stock)
    assert data.scale == RatingScale(0, 1, 1) and (data.ratings["rating"] == 1).all()
    assert for_goal(data, "lists") is data
    with pytest.raises(ValueError, match=r'no stars to predict.*goal="lists"'):
        for_goal(data, "stars")
    table = for_goal(data, "clicks").ratings
    taken = table[table["rating"] == 1]
    assert len(taken) == len(data.ratings)
    first = orders.groupby(["user", "item"])["timestamp"].min()
    assert taken.set_index(["user", "item"])["timestamp"].to_dict() == first.to_dict()
    drawn = table[table["rating"] == 0]
    assert not table.duplicated(["user", "item"]).any()
    assert 1 < len(drawn) / len(taken) < 4 and 40 not in set(drawn["item"])
    # Every unseen item alike, and all of a user after what they took.
    share = drawn["item"].value_counts() / (50 - taken["item"].value_counts())
    assert share.std() / share.mean() < 0.35
    last = table.groupby("user")["timestamp"].transform("max")
    assert (drawn["timestamp"] == last[drawn.index]).all()
    again = for_goal(rating_data(orders, {"rating": None}, items=stock), "clicks")
    assert again.content_hash() == for_goal(data, "clicks").content_hash()
    # Four draws for each that was taken.
    four = clicks(data, at=1, unseen=4)
    assert again.content_hash() == four.content_hash()
    assert again.content_hash() != clicks(data, at=1, unseen=5).content_hash()
    for goal in ("stars", "clicks", "lists"):  # what has zeros already, stays
        assert for_goal(again, goal) is again
    with pytest.raises(ValueError, match=r"no stars: columns={'rating': None}"):
        rating_data(orders)


def test_counts_become_clicks_by_a_threshold():
    plays = PAIRS.assign(rating=[14, 1, 230])
    counts = rating_data(plays, scale=(0, np.inf))
    assert rows(clicks(counts, at=2)) == [
        ["al", 10, 1, 0],
        ["bo", 10, 0, 0],
        ["bo", 30, 1, 0],
    ]
    # al has not taken 30; what bo took once is not drawn again.
    assert rows(clicks(counts, at=2, unseen=50))[3:] == [["al", 30, 0, 0]]


def test_a_shop_without_stars_is_fitted_and_recommends(tmp_path):
    rng = np.random.default_rng(0)
    kind = np.repeat(np.arange(4), 15)  # of 60 things; 16 of one kind and 1 of another
    orders = pd.DataFrame(
        [
            (f"c{u:03d}", f"{item:02d}", f"2024-05-{1 + u % 28:02d} 10:{n:02d}")
            for u in range(80)
            for n, item in enumerate(
                [*rng.permutation(15)[:11] + 15 * (u % 4), *rng.permutation(60)[:3]]
            )
        ],
        columns=["customer", "sku", "ordered"],
    )
    stock = pd.DataFrame({"item_id": [f"{item:02d}" for item in range(61)]})
    stock["category"] = [*map("kind {}".format, kind), "kind 2"]  # 60 came last night
    stock["price"] = [*rng.lognormal(2, 1, 60), np.nan]
    orders.to_csv(tmp_path / "orders.csv.gz", index=False, sep=";")
    stock.to_csv(tmp_path / "stock.csv", index=False)
    roles = {"user": "customer", "item": "sku", "timestamp": "ordered", "rating": None}
    data = read_csv(
        tmp_path / "orders.csv.gz", roles, sep=";", items=tmp_path / "stock.csv"
    )
    assert data.n_items == 61 and "07" in data.items["item_id"].tolist()
    taken = dict.fromkeys(["30", "31", "32"], 1)
    with pytest.raises(ValueError, match='goal="lists"'):
        MetaRecommender(reserved=10).fit(data, progress=False)
    lists = MetaRecommender(learner="bayesian", dim=4, reserved=10, goal="lists")
    lists.fit(data, progress=False)
    top = lists.adapt(taken).recommend(10)["item_id"].astype(int)
    assert (np.append(kind, 2)[top] == 2).sum() >= 9
    settings = {"learner": "bayesian", "dim": 4, "reserved": 10, "goal": "clicks"}
    recommender = MetaRecommender(**settings).fit(data, progress=False)
    me = recommender.adapt(taken)
    top = me.recommend(10)["item_id"].astype(int)
    assert (np.append(kind, 2)[top] == 2).sum() >= 9
    # What nobody has bought is judged by what is known of it: here, the right kind.
    score = pd.Series(me.predict(), index=data.items["item_id"])
    assert score["60"] > score[[f"{item:02d}" for item in range(30)]].max()


# --- the command ----------------------------------------------------------------------


def said(capsys, *words, status=0):
    assert main([*map(str, words)]) == status
    output = capsys.readouterr()
    return output.out + output.err


def test_the_command_reads_and_speaks_in_flags(write, capsys):
    path = write("who\twhat\tstars\twhen\n1\t2\t0\t5\n1\t3\t8\t1\n1\t3\t9\t2\n")
    words = [path]
    for remedy, taken in (
        (r"pass --sep '\t'", ["--sep", r"\t"]),
        ("say which: --columns user=NAME\n", ["--columns", "user=who", "item=what"]),
        (
            "--columns rating=NAME, or that there are no stars: --columns rating=\n",
            ["--columns", "user=who", "item=1", "rating=stars"],
        ),
        ("--scale low high", ["--scale", "1", "10"]),
        ("say --not-rated 0\n", ["--not-rated", "0"]),
        ('--duplicates "last" (or', ["--duplicates", "mean"]),
    ):
        text = said(capsys, *words, status=1)
        assert remedy in text, text
        assert not re.search(r"\b(sep|columns|scale|duplicates|not_rated)=", text), text
        words += taken
    text = said(capsys, *words)
    assert "mine: 1 ratings on the scale 1 to 10" in text and "mean     8.500" in text
    text = said(capsys, *words, "--columns", "user=who", "item=what", "rating=")
    assert "mine: 2 ratings on the scale 0 to 1" in text


def test_the_command_reads_times_without_a_header(write, capsys):
    path = write("a,x,3,1612345678901\nb,y,4,-62135596800000\n")
    text = said(capsys, path, status=1)
    assert "pass --no-header" in text
    text = said(capsys, path, "--no-header", status=1)
    assert "pass --time-format 'ms'" in text
    text = said(capsys, path, "--no-header", "--time-format", "ms")
    assert "span     0001-01-01 to 2021-02-03" in text


def test_a_file_after_a_flag_is_read_or_refused(write, capsys):
    path = write("a,b,rating\n1,2,3\n")
    columns = ["--columns", "user=a", "item=b"]
    for words in (columns, [*columns, path], ["--sep", ";"]):
        text = said(capsys, *words, status=1)  # and not MovieLens, as if none was given
        assert "ml-100k is read as it is" in text and "before the flags" in text
    assert "mine.csv" in said(capsys, path, *columns, path, status=1)
    assert "1 ratings" in said(capsys, path, *columns)
    with pytest.raises(SystemExit, match="2"):
        main(["--scale", "1", str(path)])
    with pytest.raises(SystemExit, match="2"):
        main(["--duplicates", "never", str(path)])
    assert re.search("never.*error.*first.*last.*mean", capsys.readouterr().err)


def test_both_commands_read_alike(write):
    from metarec.evaluation.__main__ import parser

    names = {action.dest for action in parser()._actions}
    assert {"columns", "sep", "encoding", "header", "duplicates", "items"} <= names
