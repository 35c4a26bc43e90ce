"""Adapters: for operators. They are in a folder that the service follows (learning/serving.py)."""

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, Depends, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.body import json_body, read_json, schema_ref
from service.api.problems import describe_errors
from service.api.state import app_state, require_key, require_operator
from service.errors import NotFound
from service.learning.canary import Canary, CanaryVerdict, Share, Tally, count_trials
from service.learning.card import make_card
from service.learning.collected import DamagedFile
from service.learning.gate import Decision
from service.learning.manifest import Manifest, Verdict
from service.learning.registry import Registry
from service.learning.serving import LearnedModel
from service.models import LEARNED
from service.wire.model import BodyModel
from service.wire.responses import Problem

PROBLEM: dict[str, Any] = {"content": {"application/problem+json": {"schema": {"$ref": schema_ref(Problem)}}}}
NOT_LEARNING = "this service does not learn: its operator has not set REDRAFT_LEARNING_DIR"
AdapterState = Literal["current", "previous", "loaded", "idle", "damaged"]


class VerdictBody(BaseModel):
    """An exam and the gate's verdict. ``against``: the adapter that served then; null for the base. ``attempt``: how
    many candidates had sat the exam by then. ``figures``: what was measured."""

    decision: Decision
    reasons: list[str]
    against: str | None
    attempt: int
    created_at: str
    figures: dict[str, float]

    @classmethod
    def of(cls, verdict: Verdict) -> dict[str, Any]:
        return {
            "decision": verdict.decision,
            "reasons": list(verdict.reasons),
            "against": verdict.against or None,
            "attempt": verdict.attempt,
            "created_at": verdict.created,
            "figures": dict(verdict.figures),
        }


class CanaryRequest(BodyModel):
    """share: of the requests that can be trials, above 0 and at most 1.
    promote: whether the adapter is to serve as soon as it is shown to be better.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"share": 0.2}]})

    share: Share = 0.2
    promote: bool = False


class CanaryBody(BaseModel):
    """A canary and its trials so far. ``against``: the adapter that served then; null for the base. ``won``, ``lost``:
    in how many trials the candidate's first drafts passed more or less often. ``gain``: the mean difference; null
    before the first trial. ``reason``: of the verdict, or why the canary has ended; null while it runs."""

    state: Literal["running", "ended"]
    verdict: CanaryVerdict
    reason: str | None
    against: str | None
    attempt: int
    share: float
    promotes: bool
    trials: int
    won: int
    lost: int
    gain: float | None
    started_at: str
    ended_at: str | None

    @classmethod
    def of(cls, canary: Canary, tally: Tally) -> dict[str, Any]:
        return {
            "state": "running" if canary.ended is None else "ended",
            "verdict": canary.verdict,
            "reason": canary.reason or None,
            "against": canary.against or None,
            "attempt": canary.attempt,
            "share": canary.share,
            "promotes": canary.promotes,
            "trials": tally.trials,
            "won": tally.wins["candidate"],
            "lost": tally.wins["incumbent"],
            "gain": tally.gain,
            "started_at": canary.started,
            "ended_at": canary.ended,
        }


class AdapterBody(BaseModel):
    """An adapter. A damaged one has only ``id``, ``model``, ``state`` and ``obstacle``.

    ``model``: what answers call it. ``obstacle``: why it would not be promoted now. ``base``: the digest of the model
    that it was trained on. ``texts``, ``pairs``: its lessons. ``traces``: from how many stored traces some of them are.
    ``withdrawn``: how many of those were deleted by their callers since, or withdrawn. ``verdict``: that of its last
    exam. ``canary``: its last one.
    """

    id: str
    model: str
    state: AdapterState
    obstacle: str | None
    base: str | None
    rank: int | None
    texts: int | None
    pairs: int | None
    traces: int | None
    withdrawn: int | None
    recipe: str | None
    created_at: str | None
    training_seconds: float | None
    forced: bool | None
    verdict: VerdictBody | None
    canary: CanaryBody | None


class WholeAdapterBody(AdapterBody):
    """An adapter with its card, in Markdown."""

    card: str | None


class AdaptersBody(BaseModel):
    """What serves, and all adapters, the newest first.

    ``model``: the name that requests use. ``base``: the main model's. ``ready``: whether the engine is up. ``serves``:
    the adapter that new requests get. ``current``: the one that the folder names. ``problem``: why that does not
    serve. ``previous``: what a rollback returns to, if it can be rolled back. Null means the base.
    """

    model: str
    base: str
    ready: bool
    serves: str | None
    current: str | None
    problem: str | None
    previous: str | None
    can_roll_back: bool
    adapters: list[AdapterBody]


router = APIRouter(
    prefix="/v1",
    dependencies=[Security(HTTPBearer(auto_error=False)), Depends(require_key), Depends(require_operator)],
    responses={
        404: {**PROBLEM, "description": "This service does not learn, or there is no such thing."},
        **describe_errors(PROBLEM, 401, 403, "default"),
    },
)
CHANGES: dict[int | str, dict[str, Any]] = {
    409: {**PROBLEM, "description": "It cannot serve; the detail says why, and nothing has changed."},
    **describe_errors(PROBLEM, 503),
}


@router.get("/adapters", summary="What is learned, and which of it serves", response_model=AdaptersBody)
async def adapters(request: Request) -> Response:
    """All adapters with their verdicts, and which one the model `learned` is now."""
    return await _show(_learned(request))


@router.get("/adapters/{id}", summary="An adapter with its card", response_model=WholeAdapterBody)
async def adapter(request: Request, id: str) -> Response:  # noqa: A002
    learned = _learned(request)
    return JSONResponse(await asyncio.to_thread(_describe_whole, learned, id))


@router.post("/adapters/{id}/promote", summary="Let an adapter serve", response_model=AdaptersBody, responses=CHANGES)
async def promote(request: Request, id: str) -> Response:  # noqa: A002
    """It serves new requests once this is answered. Requests at work keep what they began with. Only an adapter that
    the gate has let through is promoted."""
    learned = _learned(request)
    await learned.promote(id)
    return await _show(learned)


@router.post(
    "/adapters/rollback", summary="Let what served before serve again", response_model=AdaptersBody, responses=CHANGES
)
async def rollback(request: Request) -> Response:
    """It undoes the last promotion, and a second one undoes the first."""
    learned = _learned(request)
    await learned.rollback()
    return await _show(learned)


@router.post(
    "/adapters/{id}/canary",
    summary="Try an adapter",
    response_model=WholeAdapterBody,
    responses={**CHANGES, **describe_errors(PROBLEM, 400, 408, 413, 422)},
    openapi_extra=json_body(CanaryRequest),
)
async def start_canary(request: Request, id: str) -> Response:  # noqa: A002
    """It writes every second first draft for a share of the refine requests for the model `learned` that have several
    drafts and hard verifiers. Their results decide whether it is better than what serves."""
    learned = _learned(request)
    stated = await read_json(request, CanaryRequest)
    await learned.start_canary(id, stated.share, promotes=stated.promote)
    return JSONResponse(await asyncio.to_thread(_describe_whole, learned, id))


@router.delete(
    "/adapters/{id}/canary", summary="Stop trying an adapter", response_model=WholeAdapterBody, responses=CHANGES
)
async def stop_canary(request: Request, id: str) -> Response:  # noqa: A002
    """Its canary ends without a verdict. Requests at work keep it. Its trials count if its canary is started again."""
    learned = _learned(request)
    await learned.stop_canary(id)
    return JSONResponse(await asyncio.to_thread(_describe_whole, learned, id))


def _learned(request: Request) -> LearnedModel:
    learned = app_state(request).learned
    if learned is None:
        raise NotFound(NOT_LEARNING)
    return learned


async def _show(learned: LearnedModel) -> Response:
    return JSONResponse(await asyncio.to_thread(_describe_all, learned))


def _describe_all(learned: LearnedModel) -> dict[str, Any]:
    """The body for all adapters. Reads files."""
    registry = learned.registry
    previous = registry.previous
    described = [_describe(learned, digest) for digest in registry.digests]
    return {
        "model": LEARNED,
        "base": learned.base,
        "ready": learned.serving is not None,
        "serves": learned.serving or None,
        "current": registry.current or None,
        "problem": learned.problem or None,
        "previous": previous or None,
        "can_roll_back": previous is not None,
        "adapters": sorted(described, key=lambda body: body["created_at"] or "", reverse=True),
    }


def _describe(learned: LearnedModel, digest: str) -> dict[str, Any]:
    try:
        return _describe_healthy(learned, learned.registry.manifest(digest))
    except DamagedFile as error:
        known = {"id": digest, "model": learned.name_of(digest), "state": "damaged", "obstacle": str(error)}
        return dict.fromkeys(AdapterBody.model_fields) | known


def _describe_healthy(learned: LearnedModel, manifest: Manifest) -> dict[str, Any]:
    """Raises DamagedFile."""
    registry = learned.registry
    rank, _ = registry.shape(manifest.adapter)
    return {
        "id": manifest.adapter,
        "model": learned.name_of(manifest.adapter),
        "state": _state(learned, manifest.adapter),
        "obstacle": learned.obstacle(manifest) or None,
        "base": manifest.base,
        "rank": rank,
        "texts": manifest.texts,
        "pairs": manifest.pairs,
        "traces": len(manifest.traces),
        "withdrawn": len(manifest.withdrawn),
        "recipe": manifest.recipe.name,
        "created_at": manifest.created,
        "training_seconds": manifest.seconds,
        "forced": manifest.forced,
        "verdict": VerdictBody.of(manifest.verdicts[-1]) if manifest.verdicts else None,
        "canary": _describe_canary(registry, manifest.adapter),
    }


def _describe_canary(registry: Registry, digest: str) -> dict[str, Any] | None:
    canary = registry.canaries.last(digest)
    if canary is None:
        return None
    return CanaryBody.of(canary, count_trials(registry.canaries.trials(digest, canary.against)))


def _state(learned: LearnedModel, digest: str) -> AdapterState:
    if digest == learned.registry.current:
        return "current"
    if digest == learned.registry.previous:
        return "previous"
    return "loaded" if digest in learned.loaded else "idle"


def _describe_whole(learned: LearnedModel, digest: str) -> dict[str, Any]:
    if digest not in learned.registry.digests:
        raise NotFound(f"there is no adapter {digest}")
    body = _describe(learned, digest)
    healthy = body["state"] != "damaged"
    return {**body, "card": make_card(learned.registry.manifest(digest)) if healthy else None}
