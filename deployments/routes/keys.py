"""Making, listing, changing and revoking keys."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated

from fastapi import Path
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from deployments import rendering
from deployments.http.callers import caller_of
from deployments.http.json_route import json_response, json_router
from deployments.http.needs import ADMIN_ALL, VALID_KEY, needs
from deployments.http.openapi import problems
from deployments.http.request_trace import WriteId, trace_of
from deployments.http.services import services_of
from engine.keys.key_text import digest_of, id_of, new_key_text
from engine.keys.records import ROOT_ID, Key, KeyChanges
from engine.operations.keys import ChangeKey, CreateKey, GetKey, ListKeys, RevokeKey
from wire.keys import (
    KeyOut,
    KeyPatchRequest,
    KeysAnswer,
    NewKeyAnswer,
    NewKeyRequest,
    OwnKeyAnswer,
    RevokedAnswer,
)
from wire.times import microseconds

router = json_router(tag="keys")


class _KeyIdConvertor(Convertor[str]):
    """Anything but the name of the route beside it, so that that one answers 405 for itself."""

    regex = r"(?!me$)[^/]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("key_id", _KeyIdConvertor())

KeyId = Annotated[str, Path(max_length=100, description="As GET /keys lists it.")]


@router.post(
    "/keys", operation_id="createKey", response_model=NewKeyAnswer, responses=problems(507)
)
@needs(ADMIN_ALL)
async def create_key(body: NewKeyRequest, request: Request, write_id: WriteId) -> Response:
    """Make a key; its text is in this answer and nowhere else."""
    text = new_key_text()
    key = Key(
        id=id_of(text),
        digest=digest_of(text),
        name=body.name,
        scopes=tuple(body.scopes),
        namespaces=tuple(body.namespaces),
        created_us=time.time_ns() // 1_000,
        expires_us=_microseconds(body.expires_at),
        max_memories=body.max_memories,
        writes_per_minute=body.writes_per_minute,
    )
    with trace_of(request).stage("index"):
        made = await services_of(request).index.ask(CreateKey(key, request_id=write_id))
    shown = text if made.id == key.id else None
    return json_response(NewKeyAnswer(**rendering.key(made), key=shown))


@router.get("/keys", operation_id="listKeys", response_model=KeysAnswer, responses=problems())
@needs(ADMIN_ALL)
async def list_keys(request: Request) -> Response:
    """List the keys that are not revoked, without their texts."""
    with trace_of(request).stage("index"):
        keys = await services_of(request).index.ask(ListKeys())
    shown = [rendering.key(key) for key in keys]
    return json_response(KeysAnswer(keys=shown, count=len(shown)))


@router.get("/keys/me", operation_id="getOwnKey", response_model=OwnKeyAnswer, responses=problems())
@needs(VALID_KEY)
async def own_key(request: Request) -> Response:
    """Tell what the key of this request may do, and which namespace the request is for."""
    caller = caller_of(request)
    key = caller.key
    if key.id != ROOT_ID:
        with trace_of(request).stage("index"):
            key = await services_of(request).index.ask(GetKey(key.id))
    return json_response(OwnKeyAnswer(**rendering.key(key), namespace=caller.namespace))


@router.patch(
    "/keys/{key_id:key_id}",
    operation_id="updateKey",
    response_model=KeyOut,
    responses=problems(404, 507),
)
@needs(ADMIN_ALL)
async def change_key(key_id: KeyId, body: KeyPatchRequest, request: Request) -> Response:
    """Change what a key may do, from the next request with it on."""
    index = services_of(request).index
    with trace_of(request).stage("index"):
        key = await index.ask(ChangeKey(key_id, _changes(body)))
    return json_response(rendering.key(key))


@router.delete(
    "/keys/{key_id:key_id}",
    operation_id="revokeKey",
    response_model=RevokedAnswer,
    responses=problems(404, 507),
)
@needs(ADMIN_ALL)
async def revoke_key(key_id: KeyId, request: Request) -> Response:
    """Refuse a key for good, within a second everywhere."""
    with trace_of(request).stage("index"):
        await services_of(request).index.ask(RevokeKey(key_id))
    return json_response(RevokedAnswer(success=True, revoked_id=key_id))


def _changes(asked: KeyPatchRequest) -> KeyChanges:
    """What is named; a name, scopes or namespaces that are null are not."""
    changes: KeyChanges = {}
    if asked.name is not None:
        changes["name"] = asked.name
    if asked.scopes is not None:
        changes["scopes"] = tuple(asked.scopes)
    if asked.namespaces is not None:
        changes["namespaces"] = tuple(asked.namespaces)
    if "expires_at" in asked.model_fields_set:
        changes["expires_us"] = _microseconds(asked.expires_at)
    if "max_memories" in asked.model_fields_set:
        changes["max_memories"] = asked.max_memories
    if "writes_per_minute" in asked.model_fields_set:
        changes["writes_per_minute"] = asked.writes_per_minute
    return changes


def _microseconds(instant: datetime | None) -> int | None:
    return None if instant is None else microseconds(instant)
