"""MovieLens: every route ends in one table, and every failure says what to do.

The rows of the hand-made archives are invented; only the titles of items 267 and 1412,
which are oddities of the format, are real.
"""

import hashlib
import io
import os
import re
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metarec.data import (
    __main__ as command,
)
from metarec.data import (
    load_movielens_1m,
    load_movielens_100k,
    load_movielens_small,
    movielens,
)

LAND = "Land Before Time III: The Time of the Great Giving (1995)"
ML_100K = {
    "ml-100k/u.data": "7\t1412\t4\t880000002\n2\t3\t5\t880000001\n"
    "7\t267\t1\t880000002\n",
    "ml-100k/u.user": "2|33|F|writer|55105\n7|61|M|none|T8H1N\n",
    "ml-100k/u.item": "\n".join(
        [
            # Flags: unknown, Action, Adventure, Animation, Children's, Comedy, ...
            "3|Été à la mer, L' (1987)|02-Feb-1990||http://x|0|0|0|0|0|1|0|0|1"
            + "|0" * 10,
            "267|unknown||||1" + "|0" * 18,
            LAND + " (V)|01-Jan-1995||http://x|0|0|0|1|1" + "|0" * 14,
            "1500|Snow (Schnee) (2001: Part 2) (1996)|01-Jan-1996||http://x"
            + "|0" * 18
            + "|1",
            "",
        ]
    ).replace(LAND, "1412|" + LAND),
}
RECBOLE = {
    "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    + ML_100K["ml-100k/u.data"],
    "ml-100k.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\t"
    "class:token_seq\n"
    "3\tÉté à la mer, L'\t1987\tComedy Drama\n"
    "267\tunkonwn\tunkonwn\tunknown\n"
    f"1412\t{LAND}\tV\tAnimation Children's\n"
    "1500\tSnow (Schnee) (2001: Part 2)\t1996\tWestern\n",
    "ml-100k.user": "user_id:token\tage:token\tgender:token\toccupation:token\t"
    "zip_code:token\n2\t33\tF\twriter\t55105\n7\t61\tM\tnone\tT8H1N\n",
}
RECBOLE_FOLDER = "recbole/dataset_example/ml-100k/"


def zipped(files: dict[str, str], encoding: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text.encode(encoding))
    return content.getvalue()


ARCHIVE = zipped(ML_100K, "latin-1")
WHEEL = zipped(
    {RECBOLE_FOLDER + name: text for name, text in RECBOLE.items()}
    | {
        "recbole-1.2.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: recbole\n"
        "Version: 1.2.1\n",
        "recbole-1.2.1.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
    },
    "utf-8",
)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Server(HTTPServer):
    """GroupLens' stand-in: serves `content`, of which it may hold back a part."""

    content, missing, requests = b"", 0, 0


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content[: -self.server.missing or None])

    def log_message(self, *_):
        pass


@pytest.fixture
def grouplens(monkeypatch):
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(
        movielens, "GROUPLENS", f"http://127.0.0.1:{server.server_port}/"
    )
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, no path in the environment, and the hand-made set's checksums.

    Neither route works: GroupLens is a closed port, and pip has no index.
    """
    folder, wheels = tmp_path / "cache", tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("METAREC_CACHE", str(folder))
    monkeypatch.delenv("METAREC_DATA", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setattr(movielens, "GROUPLENS", "http://127.0.0.1:9/")
    monkeypatch.setitem(movielens.ARCHIVE_SHA256, "ml-100k", sha256(ARCHIVE))
    source = tmp_path / "hand-made.zip"
    source.write_bytes(ARCHIVE)
    content = movielens.read_movielens("ml-100k", source).content_hash()
    monkeypatch.setattr(movielens, "CONTENT_100K", content)
    return folder


@pytest.fixture
def wheel(tmp_path):
    """Let pip find the wheel; to be used after `cache`."""
    path = tmp_path / "wheels" / "recbole-1.2.1-py3-none-any.whl"
    path.write_bytes(WHEEL)
    return path


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was touched")

    monkeypatch.setattr("pooch.retrieve", refuse)
    monkeypatch.setattr(movielens.subprocess, "run", refuse)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


def assert_same(left, right):
    for table in ("ratings", "users", "items"):
        pd.testing.assert_frame_equal(getattr(left, table), getattr(right, table))
    assert left.content_hash() == right.content_hash()


# --- the two layouts of MovieLens-100K -----------------------------------------------


def test_hand_made_archive_becomes_the_canonical_table(cache, tmp_path):
    data = load_movielens_100k(tmp_path / "hand-made.zip")
    assert data.ratings.to_numpy().tolist() == [
        [1, 2, 4, 880000002],
        [0, 0, 5, 880000001],
        [1, 1, 1, 880000002],
    ]
    assert data.users.to_dict("list") == {
        "user_id": [2, 7],
        "age": [33, 61],
        "gender": ["F", "M"],
        "occupation": ["writer", "none"],
    }
    assert data.items["item_id"].tolist() == [3, 267, 1412, 1500]
    assert data.items["title"].tolist() == [
        "Été à la mer, L'",
        "unknown",
        LAND.removesuffix(" (1995)"),
        "Snow (Schnee) (2001: Part 2)",
    ]
    assert data.items["year"].tolist() == [1987, pd.NA, 1995, 1996]
    assert data.items["genres"].tolist() == [
        ("Comedy", "Drama"),
        ("unknown",),
        ("Animation", "Children's"),
        ("Western",),
    ]
    assert data.items["year"].dtype == "Int64"
    assert "10.1145/2827872" in data.citation


@pytest.mark.parametrize("folder", ["", RECBOLE_FOLDER])
@pytest.mark.parametrize("layout", ["archive", "wheel"])
def test_zip_and_folder_of_either_layout_give_the_same(cache, tmp_path, layout, folder):
    expected = load_movielens_100k(tmp_path / "hand-made.zip")
    source = tmp_path / "source.whl"
    source.write_bytes(ARCHIVE if layout == "archive" else WHEEL)
    assert_same(load_movielens_100k(source), expected)
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(source) as archive:
        archive.extractall(unpacked)
    assert_same(load_movielens_100k(unpacked), expected)
    inner = "ml-100k" if layout == "archive" else RECBOLE_FOLDER
    assert_same(load_movielens_100k(unpacked / inner), expected)


def test_windows_line_ends_change_nothing(cache, tmp_path):
    crlf = {name: text.replace("\n", "\r\n") for name, text in ML_100K.items()}
    (tmp_path / "crlf.zip").write_bytes(zipped(crlf, "latin-1"))
    expected = load_movielens_100k(tmp_path / "hand-made.zip")
    assert_same(load_movielens_100k(tmp_path / "crlf.zip"), expected)


def test_metarec_data_names_the_source(cache, tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("METAREC_DATA", str(tmp_path / "hand-made.zip"))
    assert load_movielens_100k().n_users == 2
    monkeypatch.setenv("METAREC_DATA", str(tmp_path / "absent.zip"))
    with pytest.raises(FileNotFoundError, match=r"absent\.zip does not exist"):
        load_movielens_100k()
    assert load_movielens_100k(tmp_path / "hand-made.zip").n_users == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ARCHIVE[:-40], "not a sound zip file"),
        (b"<html>not found</html>", "not a sound zip file"),
        (
            zipped({"a": "b"}, "ascii"),
            "does not hold the files u.data, u.user, u.item or",
        ),
        (
            zipped(ML_100K | {"ml-100k/u.data": "7\t267\t4\t880000002\n"}, "latin-1"),
            "holds other content; get the original from http",
        ),
        (
            zipped(ML_100K | {"ml-100k/u.data": "7\t267\t9\t880000002\n"}, "latin-1"),
            "row 0: rating 9 is off the scale 1 to 5",
        ),
    ],
)
def test_a_path_that_is_not_movielens(cache, tmp_path, no_network, content, message):
    (tmp_path / "bad.zip").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_movielens_100k(tmp_path / "bad.zip")


@pytest.mark.parametrize("place", [0.2, 0.4, 0.6])
def test_a_flipped_byte_inside_the_zip_is_a_clear_error(cache, tmp_path, place):
    damaged = bytearray(ARCHIVE)
    damaged[int(place * len(damaged))] ^= 0xFF
    (tmp_path / "bad.zip").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"bad\.zip"):
        load_movielens_100k(tmp_path / "bad.zip")


# --- routes, cache, failures ----------------------------------------------------------


def test_archive_is_fetched_once_and_then_read_from_the_cache(
    cache, grouplens, monkeypatch, capsys
):
    grouplens.content = ARCHIVE
    first = load_movielens_100k()
    assert files_in(cache) == ["ml-100k.zip"]
    assert_same(load_movielens_100k(), first)
    assert grouplens.requests == 1
    assert "%" not in capsys.readouterr().err  # no bar where there is no terminal


def test_progress_bar_on_a_terminal(cache, grouplens, monkeypatch, capsys):
    grouplens.content = ARCHIVE
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    load_movielens_100k()
    assert "100%" in capsys.readouterr().err


def test_wheel_by_pip_when_grouplens_is_out_of_reach(cache, wheel, tmp_path, caplog):
    data = load_movielens_100k()
    assert_same(data, movielens.read_movielens("ml-100k", tmp_path / "hand-made.zip"))
    assert files_in(cache) == ["ml-100k-recbole.zip"]
    assert (cache / "ml-100k-recbole.zip").read_bytes() == WHEEL
    assert "GroupLens' archive" in caplog.text
    assert "trying the wheel recbole==1.2.1 by pip" in caplog.text


def test_cached_wheel_needs_no_network(cache, wheel, monkeypatch):
    expected = load_movielens_100k()
    for touched in ("_fetch_archive", "_fetch_wheel"):
        monkeypatch.delattr(movielens, touched)
    assert_same(load_movielens_100k(), expected)


@pytest.mark.parametrize("missing", [1, 400])
def test_truncated_download_leaves_nothing_behind(cache, grouplens, missing):
    grouplens.content, grouplens.missing = ARCHIVE, missing
    with pytest.raises(FileNotFoundError, match="could not be fetched"):
        load_movielens_100k()
    assert files_in(cache) == []
    assert grouplens.requests == 1


def test_wrong_checksum_of_the_archive(cache, grouplens, wheel, caplog):
    grouplens.content = ARCHIVE + b"\0"
    assert load_movielens_100k().n_users == 2
    assert files_in(cache) == ["ml-100k-recbole.zip"]
    assert re.search(r"GroupLens' archive: .*hash.*does not match", caplog.text)


def test_other_content_in_the_wheel(cache, wheel, monkeypatch):
    monkeypatch.setattr(movielens, "CONTENT_100K", "0" * 64)
    with pytest.raises(FileNotFoundError, match=r"by pip: .*holds other content"):
        load_movielens_100k()
    assert files_in(cache) == []


def test_no_network_and_no_cache_lists_the_reasons_and_the_remedy(cache):
    with pytest.raises(FileNotFoundError) as caught:
        load_movielens_100k()
    message = str(caught.value)
    assert re.search(r"GroupLens' archive: .*refused", message)
    assert re.search(r"recbole==1\.2\.1 by pip: .*No matching distribution", message)
    assert f"put it at {cache / 'ml-100k.zip'}, or give its path" in message
    assert files_in(cache) == []


def test_interrupted_write_leaves_no_half_file(cache, wheel, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(movielens.os, "replace", full)
    with pytest.raises(FileNotFoundError, match="no space left"):
        load_movielens_100k()
    assert files_in(cache) == []


@pytest.mark.parametrize("name", ["ml-100k.zip", "ml-100k-recbole.zip"])
def test_corrupt_cache_is_fetched_again_with_a_message(cache, wheel, caplog, name):
    cache.mkdir()
    (cache / name).write_bytes(ARCHIVE[:300])
    assert load_movielens_100k().n_users == 2
    aside = name.replace(".zip", ".corrupt")
    assert files_in(cache) == sorted([aside, "ml-100k-recbole.zip"])
    assert f"moved to {cache / aside}" in caplog.text


# --- the other sets -------------------------------------------------------------------

ML_1M = {
    "ml-1m/ratings.dat": "2::20::5::978300760\n1::3::3::978302109\n"
    "2::3::4::978301968\n",
    "ml-1m/users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
    "ml-1m/movies.dat": "3::Été (1987)::Comedy|Drama\n"
    "20::Rain: A Tale (1999)::Western\n"
    "5::Snow (1996)::Action\n",
}
ML_SMALL = {
    "ml-latest-small/ratings.csv": "userId,movieId,rating,timestamp\n"
    "5,20,0.5,964982703\n2,3,4.5,964981247\n",
    "ml-latest-small/movies.csv": "movieId,title,genres\n"
    '3,"Été, L\' (1987)",Comedy|Drama\n20,Serial (2006\u20132007),(no genres listed)\n'
    '21,"A ""quoted"" one (1999)",IMAX\n22,NA,Drama\n',
}


def test_movielens_1m(tmp_path):
    path = tmp_path / "ml-1m.zip"
    path.write_bytes(zipped(ML_1M, "latin-1"))
    data = load_movielens_1m(path)
    assert data.ratings.to_numpy().tolist() == [
        [1, 2, 5, 978300760],
        [0, 0, 3, 978302109],
        [1, 0, 4, 978301968],
    ]
    assert data.users.to_dict("list") == {
        "user_id": [1, 2],
        "age": [1, 56],
        "gender": ["F", "M"],
        "occupation": ["K-12 student", "self-employed"],
    }
    assert data.items["item_id"].tolist() == [3, 5, 20]
    assert data.items["title"].tolist() == ["Été", "Snow", "Rain: A Tale"]
    assert data.items["year"].tolist() == [1987, 1996, 1999]
    assert data.items["genres"].tolist() == [
        ("Comedy", "Drama"),
        ("Action",),
        ("Western",),
    ]
    assert (data.name, data.scale.step) == ("ml-1m", 1)


def test_movielens_small(tmp_path):
    with zipfile.ZipFile(io.BytesIO(zipped(ML_SMALL, "utf-8"))) as archive:
        archive.extractall(tmp_path)
    data = load_movielens_small(tmp_path)
    assert data.ratings.to_numpy().tolist() == [
        [1, 1, 0.5, 964982703],
        [0, 0, 4.5, 964981247],
    ]
    assert data.users.to_dict("list") == {"user_id": [2, 5]}
    assert data.items["title"].tolist() == [
        "Été, L'",
        "Serial (2006\u20132007)",
        'A "quoted" one',
        "NA",
    ]
    assert data.items["year"].tolist() == [1987, pd.NA, 1999, pd.NA]
    genres = [("Comedy", "Drama"), (), ("IMAX",), ("Drama",)]
    assert data.items["genres"].tolist() == genres
    assert data.scale.step == 0.5


@pytest.mark.parametrize(
    ("load", "name", "content"),
    [
        (load_movielens_1m, "ml-1m", zipped(ML_1M, "latin-1")),
        (load_movielens_small, "ml-latest-small", zipped(ML_SMALL, "utf-8")),
    ],
)
def test_the_others_are_fetched_or_say_where_to_put_the_file(
    cache, grouplens, monkeypatch, load, name, content
):
    grouplens.content = content
    with pytest.raises(FileNotFoundError, match=rf"put it at .*{name}\.zip, or give"):
        load()  # its checksum is not the published one
    assert files_in(cache) == []
    monkeypatch.setitem(movielens.ARCHIVE_SHA256, name, sha256(content))
    assert load().name == name
    assert load().name == name
    assert grouplens.requests == 2


# --- the command ----------------------------------------------------------------------


def test_command_describes(cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("METAREC_DATA", str(tmp_path / "hand-made.zip"))
    assert command.main(["ml-100k"]) == 0
    text = capsys.readouterr().out
    assert "ml-100k: 3 ratings on the scale 1 to 5 in steps of 1" in text
    assert "users    2 (1 to 2 ratings each, median 1.5)" in text
    assert "items    4 (3 of them rated)" in text
    assert "density  37.50%" in text
    assert "span     1997-11-20 to 1997-11-20" in text
    assert f"hash     {movielens.CONTENT_100K}" in text
    assert "10.1145/2827872" in text
    bars = re.findall(r"^ +(\d\.0) +(\d) (#+)$", text, flags=re.M)
    assert bars == [
        ("1.0", "1", "#" * 40),
        ("4.0", "1", "#" * 40),
        ("5.0", "1", "#" * 40),
    ]


def test_command_on_a_csv_file(tmp_path, capsys):
    path = tmp_path / "mine.csv"
    path.write_text("who,item,stars\na,1,9\na,2,10\nb,2,10\n")
    columns = ["--columns", "user=who", "rating=stars"]
    assert command.main([str(path), *columns]) == 1
    assert "row 0 (and 2 more rows): rating 9 is off" in capsys.readouterr().err
    assert command.main([str(path), *columns, "--scale", "1", "10"]) == 0
    text = capsys.readouterr().out
    assert "mine: 3 ratings on the scale 1 to 10" in text
    assert re.findall("#+", text) == ["#" * 20, "#" * 40]
    # Eleven different ratings and more stand in ten bins, where there are no steps.
    rating = [1, 1.5, 2.2, 3.1, 3.2, 3.3, 5.6, 6.2, 7.7, 8.8, 9.9, 10]
    lines = [f"u,{item},{stars}" for item, stars in enumerate(rating)]
    path.write_text("\n".join(["who,item,stars", *lines]))
    assert command.main([str(path), *columns, "--scale", "1", "10"]) == 0
    counts = re.findall(r"] +(\d+) #*", capsys.readouterr().out)
    assert [int(count) for count in counts] == np.histogram(rating, 10)[0].tolist()


def test_command_quiet(cache, wheel, capsys):
    assert command.main(["--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert files_in(cache) == ["ml-100k-recbole.zip"]


@pytest.mark.parametrize("source", ["ml-100k", "ml-1m", "none.csv"])
def test_command_without_a_network(cache, monkeypatch, source):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # a closed port
    run = [sys.executable, "-m", "metarec.data", source]
    quiet = subprocess.run([*run, "--quiet"], capture_output=True, text=True)
    assert (quiet.returncode, quiet.stdout) == (1, "")
    assert re.match("error: .*(could not be fetched|No such file)", quiet.stderr)
    loud = subprocess.run(run, capture_output=True, text=True)
    assert loud.returncode == 1
    assert ("trying the wheel" in loud.stderr) == (source == "ml-100k")
    assert "Traceback" not in loud.stderr + quiet.stderr


def test_command_help():
    run = subprocess.run(
        [sys.executable, "-m", "metarec.data", "--help"], capture_output=True, text=True
    )
    assert run.returncode == 0
    assert "METAREC_DATA" in run.stdout
    assert run.stderr == ""


# --- the real data --------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    try:
        return load_movielens_100k(progress=False)
    except FileNotFoundError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.mark.slow
def test_facts_of_movielens_100k(real):
    ratings = real.ratings
    assert (len(ratings), real.n_users, real.n_items) == (100_000, 943, 1682)
    mean = ratings["rating"].astype("float64").mean()
    assert mean == pytest.approx(3.52986, abs=5e-6)
    assert ratings.groupby("user").size().min() == 20
    # A user has few stamps: 49% as many as ratings, and 76% of the ratings share one.
    stamps = ratings.groupby(["user", "timestamp"]).size()
    assert round(len(stamps) / len(ratings), 2) == 0.49
    assert round(stamps[stamps > 1].sum() / len(ratings), 2) == 0.76
    assert (ratings.groupby("item").size() < 5).sum() == 333
    assert real.users["user_id"].tolist() == list(range(1, 944))
    assert real.items["item_id"].tolist() == list(range(1, 1683))
    assert len(real.items[["title", "year"]].drop_duplicates()) == 1664
    assert real.items["year"].isna().sum() == 1
    assert real.items.loc[266, "title"] == "unknown"
    assert real.items.loc[1411, ["title", "year"]].tolist() == [
        LAND.removesuffix(" (1995)"),
        1995,
    ]
    assert set().union(*real.items["genres"]) == set(movielens.GENRES_100K)
    order = {genre: place for place, genre in enumerate(movielens.GENRES_100K)}
    assert all(list(g) == sorted(g, key=order.get) for g in real.items["genres"])


@pytest.mark.skipif("METAREC_DATA" not in os.environ, reason="METAREC_DATA is not set")
def test_real_archive_equals_the_other_route(real, monkeypatch):
    monkeypatch.delenv("METAREC_DATA")
    assert_same(real, load_movielens_100k(progress=False))
