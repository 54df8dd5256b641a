"""A saved recommender as a service over HTTP: python -m metarec.serve MODEL.

POST /recommend and /explain, GET /health; / is a page to try them, /openapi.json says
what they take. It needs FastAPI and uvicorn: pip install metarec[serve].
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import resources
from typing import Annotated, Any

import torch

from metarec import __version__
from metarec.recommender import MetaRecommender, PersonalModel, UnknownItemError

try:
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import HTMLResponse, JSONResponse
    from pydantic import BaseModel, BeforeValidator, Field, FiniteFloat, StrictInt
    from starlette.middleware.base import RequestResponseEndpoint
except ImportError as missing:
    text = f"{missing.name} is missing: pip install metarec[serve]"
    raise ImportError(text) from missing

__all__ = ["service"]

MOST_BYTES, MOST_RATINGS = 2**20, 1000
Label = StrictInt | Annotated[str, Field(strict=True, max_length=200)]
Text = BeforeValidator(lambda label: label if isinstance(label, int) else str(label))
Stars = Annotated[FiniteFloat, Field(strict=True)]


class Rating(BaseModel, extra="forbid"):
    """An item that the user has rated."""

    item: Label
    rating: Stars


class User(BaseModel, extra="forbid"):
    """What is known of a user, who need not be known by name."""

    ratings: list[Rating] = Field(default=[], max_length=MOST_RATINGS)
    user: dict[str, int | FiniteFloat | str | None] | None = None


class ListWanted(User):
    """A user, and what list is wanted."""

    n: int = Field(default=10, ge=1, le=1000)
    min_ratings: int = Field(default=0, ge=0, le=10**9)
    surprise: float = Field(default=0, ge=0, le=1)


class ReasonWanted(User):
    """A user, and the item whose score is to be explained."""

    item: Label


class Item(BaseModel):
    """An item, as the tables of the recommender name it."""

    item: Annotated[int | str, Text] = Field(validation_alias="item_id")
    title: str


class Scored(Item):
    """An item of a list, and its score: the stars that are expected, or log-odds."""

    score: float


class Effect(Item):
    """A rating, and what it did to the score: in stars, by leaving it out."""

    rating: float
    effect: float


class Refusal(BaseModel):
    """What to change, in a sentence."""

    detail: str


def service(recommender: MetaRecommender) -> FastAPI:
    """Build the application around one recommender, which all threads share.

    An item is named by its item_id; where that is no text and no whole number, by the
    text of it. What cannot be answered gets one sentence that says what to send.

    Parameters
    ----------
    recommender
        The recommender, fitted or loaded.

    Returns
    -------
    FastAPI
        The application, for uvicorn or another server.

    Plumbing
    --------
    The chapter many-users runs it.
    """
    refusals: Any = {code: {"model": Refusal} for code in (400, 413, 422)}
    about: Any = {"title": "metarec", "version": __version__, "responses": refusals}
    app = FastAPI(docs_url=None, redoc_url=None, **about)
    ids = recommender.items["item_id"].tolist()
    names: dict[Any, Any] = {str(label): label for label in ids} | {x: x for x in ids}
    page = (resources.files("metarec") / "serve.html").read_text(encoding="utf-8")

    def own(label: int | str) -> Any:
        return names.get(label, names.get(str(label), label))

    def adapt(wanted: User) -> PersonalModel:
        pairs = [(own(one.item), one.rating) for one in wanted.ratings]
        return recommender.adapt(pairs, wanted.user)

    @app.post("/recommend", response_model=list[Scored])
    def recommend(wanted: ListWanted) -> Any:
        """The items with the highest score that the user has not rated."""
        settings = wanted.n, wanted.min_ratings, wanted.surprise
        return adapt(wanted).recommend(*settings).to_dict("records")

    @app.post("/explain", response_model=list[Effect])
    def explain(wanted: ReasonWanted) -> Any:
        """What each rating did to the score of the item, the strongest first."""
        return adapt(wanted).explain(own(wanted.item)).to_dict("records")

    @app.get("/health")
    def health() -> dict[str, Any]:
        """That the service is up, and what it serves."""
        return {"status": "ok", "items": len(ids), "scale": str(recommender.scale)}

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def try_it() -> str:
        return page

    def refused(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 400)

    for kind in (UnknownItemError, ValueError, ArithmeticError):
        app.add_exception_handler(kind, refused)

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        # Without what was sent: NaN is no JSON. And two, since what may be text or a
        # number is wrong in two ways.
        said = [(*map(str, one["loc"]), one["msg"]) for one in error.errors()[:2]]
        text = "; ".join(f"{'.'.join(place)}: {why}" for *place, why in said)
        return JSONResponse({"detail": text}, 422)

    @app.middleware("http")
    async def bounded(request: Request, go_on: RequestResponseEndpoint) -> Response:
        size = int(request.headers.get("content-length", 0))
        if size <= MOST_BYTES and "transfer-encoding" not in request.headers:
            return await go_on(request)
        # Read and forgotten: who sends without listening would miss the answer.
        left = 64 * MOST_BYTES
        async for part in request.stream():
            if (left := left - len(part)) < 0:
                break
        text = f"a body has at most {MOST_BYTES} bytes, and a header with their number"
        return JSONResponse({"detail": text}, 413)

    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the model, once, and serve it; return 1 if it cannot be loaded."""
    parser = argparse.ArgumentParser("python -m metarec.serve", description=__doc__)
    parser.add_argument("model", help="a file that MetaRecommender.save has written")
    parser.add_argument("--host", default="127.0.0.1", help="%(default)s: this machine")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # requests have threads of their own
    try:
        app = service(MetaRecommender.load(options.model))
        uvicorn.run(app, host=options.host, port=options.port, access_log=False)
    except (OSError, OverflowError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
