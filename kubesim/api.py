"""The API server as an ASGI application.

For each request: faults, authentication, authorization, handler, answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import yaml

from kubesim import errors, options, patch, schema
from kubesim.authentication import ANONYMOUS, Authenticator, User
from kubesim.binding import bind
from kubesim.discovery_routes import answer_discovery
from kubesim.errors import ApiError
from kubesim.eviction import evict
from kubesim.faults import (
    Answer,
    BreakWatch,
    Delay,
    Down,
    DropAnswer,
    Faults,
    Hook,
    How,
    LateAnswer,
    OldList,
    Request,
    Reset,
)
from kubesim.options import Paging
from kubesim.ownership import duplicates
from kubesim.paging import Listing, page
from kubesim.rbac import Attributes, Authorizer
from kubesim.registry import Deletion, Registry, Write, check_namespace_of
from kubesim.requestlog import Exchange, RequestLog
from kubesim.resources import BY_PATH, GROUPS, NAMESPACES, PODS, Json, Obj, Resource
from kubesim.scale import scale_of, scaled
from kubesim.selectors import FieldSelector, label_selector, labels_of
from kubesim.store import Change, version_of
from kubesim.tables import table
from kubesim.watch import Watch, WatchBroken, error_event

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
APPLY = "application/apply-patch+yaml"
STRATEGIC = "application/strategic-merge-patch+json"
_PATCHES: dict[str, Callable[[Any, Any], Any]] = {
    "application/json-patch+json": patch.json_patch,
    "application/merge-patch+json": patch.merge,
    STRATEGIC: patch.strategic,
}
_BODIES = (JSON, "application/yaml", "application/vnd.kubernetes.protobuf")
"""Media types of bodies that are no patches."""
_EVICTION_VERSIONS = ("policy/v1", "policy/v1beta1")
_RBAC_GROUP = "rbac.authorization.k8s.io"
_ACCESS_REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_encode = msgspec.json.Encoder().encode


@dataclass
class Call:
    """One authenticated request to a resource."""

    user: User
    method: str
    resource: Resource
    namespace: str
    name: str
    subresource: str
    query: dict[str, str]
    body: bytes
    content_type: str
    accept: str
    agent: str
    warnings: list[str] = field(default_factory=list)
    changes_behind: int = 0
    """A list shows the state before so many changes of its resource."""

    @property
    def dry_run(self) -> bool:
        return self.query.get("dryRun") == "All"

    @property
    def watches(self) -> bool:
        return options.flag(self.query, "watch")

    @property
    def verb(self) -> str:
        named = bool(self.name)
        return {
            "GET": "get" if named else "watch" if self.watches else "list",
            "POST": "create",
            "PUT": "update",
            "PATCH": "patch",
            "DELETE": "delete" if named else "deletecollection",
        }.get(self.method, "")

    @property
    def attributes(self) -> Attributes:
        plural = self.resource.plural
        namespace = self.namespace
        if self.resource is NAMESPACES:
            namespace = self.name
        return Attributes(
            self.verb,
            f"{plural}/{self.subresource}" if self.subresource else plural,
            self.resource.group,
            namespace,
            self.name,
        )

    def write(self, check: Callable[[Resource, Obj, Obj | None], None] | None = None) -> Write:
        manager = self.query.get("fieldManager") or self.agent.partition("/")[0] or "unknown"
        return Write(manager, self.dry_run, self.subresource, check=check)

    @property
    def validation(self) -> str:
        return self.query.get("fieldValidation", "")

    def check_media_type(self, accepted: Sequence[str] = _BODIES) -> None:
        """Check the type of the body; without a type it is JSON.

        Raises ApiError (415).
        """
        if (self.content_type or JSON) not in accepted or "protobuf" in self.content_type:
            raise errors.unsupported_media_type(accepted)

    def decoded(self) -> Json:
        """Decode the body from JSON or YAML.

        Raises ApiError (400).
        """
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError as fault:
            if "yaml" in self.content_type:
                try:
                    return yaml.safe_load(self.body)
                except yaml.YAMLError as yaml_fault:
                    raise errors.bad_request(f"error decoding YAML: {yaml_fault}") from yaml_fault
            raise errors.bad_request(f"couldn't get version/kind; json parse error: {fault}") from (
                fault
            )

    def typed(
        self, kind: str, versions: Sequence[str], model: schema.Model | None, body: Json
    ) -> Obj:
        """The body as an object of a kind. It may omit kind and version.

        `versions`: those that are accepted, the default first; none: each version is.

        Raises ApiError (400: another kind or version, a wrong type, an unknown field if Strict).
        """
        body = {} if body is None else body
        if not isinstance(body, dict):
            raise errors.bad_request(f"the body is no object of kind {kind}")
        given = body.get("kind") or kind
        version = body.get("apiVersion") or (*versions, "v1")[0]
        subject = f'{given} in version "{version}" cannot be handled as a {kind}'
        if versions and version not in versions:
            raise errors.bad_request(
                f"the API version in the data ({version}) does not match the expected API version"
                f" ({versions[0]})"
            )
        if given != kind:
            raise errors.bad_request(f"{subject}: it is of another kind")
        try:
            obj, unknown = schema.decode(model, body)
        except schema.WrongTypeError as fault:
            raise errors.bad_request(f"{subject}: {fault}") from fault
        schema.report(
            unknown,
            self.validation,
            self.warnings,
            lambda why: errors.bad_request(f"{subject}: {why}"),
        )
        return obj


@dataclass
class Response:
    """A complete answer."""

    status: int
    body: Obj | str
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


class Api:
    """The ASGI application over a registry."""

    def __init__(
        self,
        registry: Registry,
        authenticators: tuple[Authenticator, ...],
        authorizer: Authorizer,
        faults: Faults,
        log: RequestLog,
    ) -> None:
        self.registry = registry
        self.store = registry.store
        self.authenticators = authenticators
        self.authorizer = authorizer
        self.faults = faults
        self.log = log
        self.watches: set[Watch] = set()
        self._open: set[Callable[[], None]] = set()
        faults.listen(self.drop_connections, lambda: None)
        self.store.subscribe(self._break_watches_of)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in
                   scope["headers"]}  # fmt: skip
        query_text = scope["query_string"].decode("latin-1")
        entry = Exchange(
            scope["method"],
            scope["path"],
            query_text,
            headers.get("user-agent", ""),
            self.registry.now(),
        )
        self.log.entries.append(entry)
        exchange = _HttpExchange(
            self, entry, headers, receive=receive, send=send, cut=_dropper(scope)
        )
        self._open.add(exchange.drop)
        try:
            await exchange.run()
        finally:
            self._open.discard(exchange.drop)
            entry.ended_at = self.registry.now()

    def drop_connections(self) -> None:
        """Cut the connection of every open request, watches included."""
        for drop in list(self._open):
            drop()

    def break_watches(self, how: How, resource: Resource | None = None) -> None:
        """Break every open watch, or those of one resource."""
        for watch in list(self.watches):
            if resource in (None, watch.resource):
                watch.break_now(BreakWatch(how=how))

    def _break_watches_of(self, change: Change) -> None:
        for fault in self.faults.watch_breaks(change.resource.plural):
            self.break_watches(fault.how, change.resource)

    async def authenticate(self, authorization: str) -> User:
        """Return the user of an Authorization header.

        Raises ApiError (401 for an unknown token).
        """
        scheme, _, token = authorization.partition(" ")
        if not authorization:
            return ANONYMOUS
        if scheme.lower() == "bearer":
            for authenticator in self.authenticators:
                user = await authenticator.authenticate(token.strip())
                if user is not None:
                    return user
        raise errors.unauthorized()

    def route(self, path: str) -> tuple[Resource, str, str, str] | None:
        """Resource, namespace, name and subresource of a path; None for a non-resource path.

        Raises ApiError (404: the resource is not served; as text if its group is not served).
        """
        parts = path.strip("/").split("/")
        if parts[0] == "api" and len(parts) > 2:
            group, version, rest = "", parts[1], parts[2:]
        elif parts[0] == "apis" and len(parts) > 3:
            group, version, rest = parts[1], parts[2], parts[3:]
        else:
            return None
        namespace = ""
        if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        resource = BY_PATH.get((group, version, rest[0]))
        if resource is None or len(rest) > 3:
            raise errors.no_such_path() if group in GROUPS else errors.no_such_page()
        name, sub = (*rest[1:], "", "")[:2]
        if (namespace or name) and bool(namespace) != resource.namespaced:
            raise errors.no_such_path()
        if sub and sub not in resource.subresources:
            raise errors.no_such_path()
        return resource, namespace, name, sub

    def handle(self, call: Call) -> Response:
        """Answer a request other than a watch.

        Raises ApiError (the request is refused).
        """
        _check_method(call)
        if call.subresource == "eviction":
            return self._evict(call)
        if call.subresource == "binding":
            return self._bind(call)
        if call.subresource == "scale":
            return self._scale(call)
        handlers = {
            "get": self._get,
            "list": self._list,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }
        return handlers[call.verb](call)

    # Reads

    def _get(self, call: Call) -> Response:
        self.store.check_reached(version_of(call.query.get("resourceVersion")))
        obj = self.registry.get(call.resource, call.namespace, call.name)
        return self._shown(call, 200, obj)

    def _shown(self, call: Call, status: int, obj: Obj) -> Response:
        if "as=Table" in call.accept:
            metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            return Response(status, self._table(call, [obj], metadata))
        return Response(status, call.resource.typed(obj))

    def _table(self, call: Call, objects: list[Obj], metadata: Obj) -> Obj:
        include = call.query.get("includeObject", "Metadata")
        return table(call.resource, objects, metadata, self.registry.now(), include)

    def _listing(self, call: Call, paging: Paging) -> Listing:
        fields = FieldSelector(call.resource, call.query.get("fieldSelector", ""))
        selector = call.query.get("labelSelector", "")
        labels = label_selector(selector)
        namespace = call.namespace

        def matches(obj: Obj) -> bool:
            return (
                (not namespace or obj["metadata"].get("namespace") == namespace)
                and (not fields or fields.matches(obj))
                and (not selector or labels(labels_of(obj)))
            )

        return Listing(
            call.resource,
            namespace,
            fields,
            matches,
            selective=bool(fields or selector),
            paging=paging,
        )

    def _list(self, call: Call) -> Response:
        version = self.store.version_before(call.resource, call.changes_behind)
        listing = self._listing(call, options.paging_of(call.query))
        items, metadata = page(self.store, listing, version)
        if "as=Table" in call.accept:
            return Response(200, self._table(call, items, metadata))
        body = {
            "kind": f"{call.resource.kind}List",
            "apiVersion": call.resource.api_version,
            "metadata": metadata,
            "items": items,
        }
        return Response(200, body)

    def watch(self, call: Call, fault: BreakWatch | None) -> Watch:
        """Start a watch.

        Raises ApiError (400, 422, 500: an invalid parameter, 410: the version is too old).
        """
        timeout = options.number(call.query, "timeoutSeconds")
        options.check_watch(call.query)
        listing = self._listing(call, Paging())
        version = version_of(call.query.get("resourceVersion"))
        as_table = "as=Table" in call.accept

        def render(obj: Obj) -> Obj:
            if as_table:
                metadata = {"resourceVersion": obj["metadata"]["resourceVersion"]}
                return self._table(call, [obj], metadata)
            return call.resource.typed(obj)

        return Watch(
            self.store,
            call.resource,
            matches=listing.matches,
            since=version or None,
            timeout=timeout or None,
            bookmarks=options.flag(call.query, "allowWatchBookmarks"),
            render=render,
            fault=fault,
        )

    # Writes

    def _write_of(self, call: Call) -> Write:
        """The options of a write; for RBAC objects with a check against privilege escalation."""
        if call.resource.group != _RBAC_GROUP:
            return call.write()

        def check(resource: Resource, new: Obj, old: Obj | None) -> None:
            granted = ("rules", "roleRef", "subjects")
            if old is None or any(new.get(key) != old.get(key) for key in granted):
                self.authorizer.check_grant(call.user, resource, new)

        return call.write(check)

    def _object(self, call: Call, kind: str) -> Obj:
        """The object in the body of a create or an update; `kind`: of the request's options.

        Raises ApiError (415, 422: invalid options, 400: the body cannot be decoded).
        """
        call.check_media_type()
        options.check_write(kind, call.query)
        resource = call.resource
        obj = call.typed(
            resource.kind, [resource.api_version], schema.model_of(resource), call.decoded()
        )
        check_namespace_of(obj, call.namespace)
        return obj

    def _create(self, call: Call) -> Response:
        obj = self._object(call, "CreateOptions")
        write = self._write_of(call)
        created = self.registry.create(call.resource, call.namespace, obj, write)
        return self._shown(call, 201, created)

    def _update(self, call: Call) -> Response:
        obj = self._object(call, "UpdateOptions")
        resource, given = call.resource, obj.get("metadata") or {}
        if given.get("name", "") != call.name:
            raise errors.wrong_name(given.get("name", ""), call.name)
        write = self._write_of(call)
        old = self.store.get(resource, call.namespace, call.name)
        if old is None and resource.created_by_update and not call.subresource:
            version_of(given.pop("resourceVersion", None))
            return self._shown(
                call, 201, self.registry.create(resource, call.namespace, obj, write)
            )
        old = self.registry.get(resource, call.namespace, call.name)
        was = old["metadata"]["uid"]
        if given.get("uid", was) != was:
            why = f"Precondition failed: UID in precondition: {given['uid']}, UID in object meta:"
            raise errors.conflict(resource, call.name, f"{why} {was}")
        return self._shown(call, 200, self.registry.update(resource, old, obj, write))

    def _patch(self, call: Call) -> Response:
        call.check_media_type((*_PATCHES, APPLY))
        options.check_write("PatchOptions", call.query, apply=call.content_type == APPLY)
        if call.content_type == APPLY:
            return self._apply(call)
        old = self.registry.get(call.resource, call.namespace, call.name)
        body = self._patched(call, call.resource.typed(old))
        check_namespace_of(body, call.namespace)
        if (given := body["metadata"].get("name", "")) != call.name:
            raise errors.wrong_name(given, call.name)
        new = self.registry.update(call.resource, old, body, self._write_of(call))
        return self._shown(call, 200, new)

    @staticmethod
    def _patched(call: Call, old: Obj) -> Obj:
        """The object after the patch, without unknown fields.

        Raises ApiError (400: the body is no patch, 422: the patched object cannot be decoded).
        """
        patched = _PATCHES[call.content_type](old, call.decoded())
        if not isinstance(patched, dict):
            raise errors.bad_request("error decoding patch: the body is no object")
        identity = {key: old[key] for key in ("kind", "apiVersion")}
        if call.content_type == STRATEGIC:
            patched = {**patched, **identity}
        try:
            body, unknown = schema.decode(schema.model_of(call.resource), patched)
        except schema.WrongTypeError as fault:
            raise errors.invalid_patch(patched, str(fault)) from fault
        if any(body.setdefault(key, value) != value for key, value in identity.items()):
            raise errors.invalid_patch(patched, "a patch changes neither kind nor apiVersion")
        schema.report(
            unknown,
            call.validation,
            call.warnings,
            lambda why: errors.invalid_patch(patched, why),
        )
        body.setdefault("metadata", {})
        return body

    def _apply(self, call: Call) -> Response:
        obj = _applied(call)
        if self.store.get(call.resource, call.namespace, call.name) is None:
            create = Attributes(
                "create", call.resource.plural, call.resource.group, call.namespace, call.name
            )
            self.authorizer.check(call.user, create)
        new, created = self.registry.apply(
            call.resource,
            call.namespace,
            call.name,
            obj,
            self._write_of(call),
            force=options.flag(call.query, "force"),
        )
        return self._shown(call, 201 if created else 200, new)

    @staticmethod
    def _deletion(call: Call) -> Deletion:
        """The DeleteOptions of the body; without a body those of the query.

        Raises ApiError (415, 400, 422).
        """
        if not call.body:
            return options.deletion_of(call.query)
        call.check_media_type()
        # Unknown fields are ignored, whatever fieldValidation says.
        lenient = replace(call, query={"fieldValidation": "Ignore"})
        model = schema.model("meta", "v1", "DeleteOptions")
        return options.deletion(lenient.typed("DeleteOptions", (), model, call.decoded()))

    def _delete(self, call: Call) -> Response:
        obj, gone = self.registry.delete(
            call.resource, call.namespace, call.name, self._deletion(call)
        )
        if gone and not call.resource.returns_deleted:
            return Response(200, _deleted(call.resource, obj))
        return Response(200, call.resource.typed(obj))

    def _delete_collection(self, call: Call) -> Response:
        listing = self._listing(call, options.paging_of(call.query))
        how = self._deletion(call)
        items, metadata = page(self.store, listing)
        for obj in items:
            name = obj["metadata"]["name"]
            self.registry.delete(call.resource, obj["metadata"].get("namespace", ""), name, how)
        body = {
            "kind": f"{call.resource.kind}List",
            "apiVersion": call.resource.api_version,
            "metadata": metadata,
            "items": items,
        }
        return Response(200, body)

    def _posted(self, call: Call, kind: str, versions: Sequence[str]) -> Obj:
        """The body of a request that creates a subresource of a pod.

        Raises ApiError (as `_object`, and 404 or 403 for the namespace).
        """
        call.check_media_type()
        options.check_write("CreateOptions", call.query)
        group, _, version = versions[0].rpartition("/")
        body = call.typed(kind, versions, schema.model(group, version, kind), call.decoded())
        check_namespace_of(body, call.namespace)
        self.registry.check_namespace(PODS, call.namespace, call.name)
        if (body.get("metadata") or {}).get("name", "") != call.name:
            raise errors.bad_request(f"name in URL does not match name in {kind} object")
        return body

    def _evict(self, call: Call) -> Response:
        body = self._posted(call, "Eviction", _EVICTION_VERSIONS)
        given = body.get("deleteOptions") or {}
        if call.dry_run:
            given = {"dryRun": ["All"], **given}
            if given["dryRun"] != ["All"]:
                why = "Non-matching dry-run options in request and content"
                raise errors.internal(f"{why}: [All] and {given['dryRun']}")
        evict(self.registry, call.namespace, call.name, given)
        return Response(201, _success(201))

    def _bind(self, call: Call) -> Response:
        target = self._posted(call, "Binding", ("v1",)).get("target") or {}
        if not target.get("name"):
            raise errors.internal("target.name: Required value")
        if target.get("kind") not in (None, "", "Node"):
            raise errors.internal(f'target.kind: Unsupported value: "{target["kind"]}"')
        pod = self.registry.get(PODS, call.namespace, call.name)
        bind(self.registry, pod, target["name"], dry_run=call.dry_run)
        return Response(201, _success(201))

    def _scale(self, call: Call) -> Response:
        workload = self.registry.get(call.resource, call.namespace, call.name)
        if call.verb == "get":
            return Response(200, scale_of(workload))
        if call.verb not in ("update", "patch"):
            raise errors.method_not_allowed()
        written = call.decoded()
        if call.verb == "patch":
            written = self._patcher(call)(scale_of(workload), written)
        body = scaled(workload, written)
        new = self.registry.update(call.resource, workload, body, call.write())
        return Response(200, scale_of(new))

    def _patcher(self, call: Call) -> Callable[[Any, Any], Any]:
        """The function for the type of a patch. Raises ApiError (415)."""
        patcher = _PATCHES.get(call.content_type)
        if patcher is None:
            raise errors.unsupported_media_type([*_PATCHES, APPLY])
        return patcher


def _check_method(call: Call) -> None:
    """Check that the path has the request's method.

    Raises ApiError (405).
    """
    if call.subresource:
        allowed = _SUBRESOURCE_METHODS[call.subresource]
    elif call.name:
        allowed = ("GET", "PUT", "PATCH", "DELETE")
    elif call.resource.namespaced and not call.namespace:
        allowed = ("GET",)
    elif call.resource is NAMESPACES:
        allowed = ("GET", "POST")
    else:
        allowed = ("GET", "POST", "DELETE")
    if call.method not in allowed:
        raise errors.method_not_allowed()


_SUBRESOURCE_METHODS: dict[str, tuple[str, ...]] = {
    "status": ("GET", "PUT", "PATCH"),
    "finalize": ("PUT",),
    "eviction": ("POST",),
    "binding": ("POST",),
    "scale": ("GET", "PUT", "PATCH"),
}


def _applied(call: Call) -> Obj:
    """The object of a server-side apply.

    Raises ApiError (400: another version, managedFields; 500: fields that its kind does not have,
    as structured-merge-diff answers).
    """
    resource, body = call.resource, call.decoded()
    if not isinstance(body, dict):
        raise errors.bad_request("error decoding YAML: the body is no object")
    version = body.get("apiVersion") or ""
    if version != resource.api_version:
        raise errors.bad_request(
            f"Incorrect version specified in apply patch. Specified patch version: {version},"
            f" expected: {resource.api_version}"
        )
    if body.get("kind") != resource.kind:
        raise errors.bad_request(f"invalid object type: /{version}, Kind={body.get('kind', '')}")
    if (body.get("metadata") or {}).get("managedFields") is not None:
        raise errors.bad_request("metadata.managedFields must be nil")
    try:
        obj, unknown = schema.decode(schema.model_of(resource), body, empty=True)
    except schema.WrongTypeError as fault:
        raise _untyped(body, str(fault)) from fault
    if unknown:
        raise _untyped(body, f".{unknown[0]}: field not declared in schema")
    for path, item in duplicates(obj):
        raise _untyped(body, f"{path}: duplicate entries for key {item}")
    return obj


def _untyped(body: Obj, why: str) -> ApiError:
    name = (body.get("metadata") or {}).get("name", "")
    kind = f"{body.get('apiVersion')}, Kind={body.get('kind')}"
    return errors.internal(f"failed to create typed patch object (/{name}; {kind}): {why}")


def _success(code: int) -> Obj:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "code": code,
    }


def _deleted(resource: Resource, obj: Obj) -> Obj:
    details = errors.about(resource, obj["metadata"]["name"])
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {**details, "uid": obj["metadata"]["uid"]},
    }


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _dropper(scope: Scope) -> Callable[[], None]:
    def nothing() -> None:
        """Do nothing: this server cannot cut a connection."""

    drop: Callable[[], None] = scope.get("extensions", {}).get("sandbox.drop", nothing)
    return drop


class _HttpExchange:
    """One request on its connection."""

    def __init__(
        self,
        api: Api,
        entry: Exchange,
        headers: dict[str, str],
        *,
        receive: Receive,
        send: Send,
        cut: Callable[[], None],
    ) -> None:
        self._api = api
        self._entry = entry
        self._headers = headers
        self._receive = receive
        self._send = send
        self._cut = cut
        self._dropped = False
        self._drop_answer = False
        self._answer_after = 0.0
        self._break_watch: BreakWatch | None = None
        self._changes_behind = 0

    def drop(self) -> None:
        """Cut the connection."""
        self._dropped = True
        self._cut()

    async def run(self) -> None:
        body = await self._body()
        query = dict(parse_qsl(self._entry.query, keep_blank_values=True))
        request = Request(self._entry.method, self._entry.path, query, self._entry.user_agent, body)
        answer = await self._inject_faults(request)
        if self._dropped:
            await self._disconnected()
        elif answer is not None:
            await self._reply(answer)
        else:
            await self._serve(request)

    async def _serve(self, request: Request) -> None:
        warnings: list[str] = []
        try:
            user = await self._user()
            self._entry.user = user.name
            response = self._non_resource(user, request)
            if response is None:
                call = self._call(user, request)
                warnings = call.warnings
                self._api.authorizer.check(user, call.attributes)
                if call.verb == "watch":
                    await self._watch(call)
                    return
                response = self._api.handle(call)
        except ApiError as error:
            response = _refusal(error)
            if error.retry_after is not None:
                response.headers["retry-after"] = str(error.retry_after)
        if warnings:
            texts = ", ".join(f'299 - "{_escaped(text)}"' for text in warnings)
            response.headers["warning"] = texts
        await self._reply(response)

    async def _user(self) -> User:
        """The authenticated user, or the user that it impersonates."""
        user = await self._api.authenticate(self._headers.get("authorization", ""))
        name = self._headers.get("impersonate-user")
        if not name:
            return user
        groups = [group for group in [self._headers.get("impersonate-group")] if group]
        return self._api.authorizer.impersonated(user, name, groups)

    def _call(self, user: User, request: Request) -> Call:
        routed = self._api.route(request.path)
        if routed is None:
            raise errors.no_such_path()
        resource, namespace, name, subresource = routed
        content_type = self._headers.get("content-type", "").partition(";")[0].strip()
        call = Call(
            user,
            request.method,
            resource,
            namespace,
            name,
            subresource,
            request.query,
            request.body,
            content_type,
            self._headers.get("accept", ""),
            request.user_agent,
            changes_behind=self._changes_behind,
        )
        self._entry.verb = call.verb
        self._entry.resource = call.attributes.resource
        return call

    def _non_resource(self, user: User, request: Request) -> Response | None:
        """Answer a non-resource request; None: the path is of a resource."""
        if request.path == _ACCESS_REVIEW and request.method == "POST":
            return self._access_review(user, request.body)
        if self._api.route(request.path) is not None:
            return None
        attributes = Attributes(request.method.lower(), path=request.path)
        self._api.authorizer.check(user, attributes)
        body, content_type = answer_discovery(request.path, self._headers.get("accept", ""))
        if body is None:
            group = (*request.path.strip("/").split("/"), "")[1]
            served = request.path.startswith("/apis/") and group in GROUPS
            raise errors.no_such_path() if served else errors.no_such_page()
        return Response(200, body, content_type)

    def _access_review(self, user: User, body: bytes) -> Response:
        try:
            review = msgspec.json.decode(body)
        except msgspec.DecodeError as fault:
            raise errors.unsupported_media_type([JSON]) from fault
        requested = review.get("spec", {}).get("resourceAttributes") or {}
        plural, sub = requested.get("resource", ""), requested.get("subresource", "")
        attributes = Attributes(
            requested.get("verb", ""),
            f"{plural}/{sub}" if sub else plural,
            requested.get("group", ""),
            requested.get("namespace", ""),
            requested.get("name", ""),
        )
        allowed = self._api.authorizer.allows(user, attributes)
        return Response(201, {**review, "status": {"allowed": allowed}})

    async def _inject_faults(self, request: Request) -> Response | None:
        """Apply the faults that match the request; return the answer if a fault gives one."""
        for action in self._api.faults.matching(request):
            if isinstance(action, Answer):
                return _canned(action)
            if isinstance(action, Delay):
                await self._pause(action.seconds)
            elif isinstance(action, Hook):
                result = action.function(request)
                if result is not None:
                    await result
            else:
                self._inject(action)
            if self._dropped:
                return None
        return None

    async def _pause(self, seconds: float) -> None:
        """Wait; return early if the client disconnects."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(seconds) else seconds):
                await self._disconnected()
                self._dropped = True

    def _inject(
        self, action: LateAnswer | OldList | Reset | DropAnswer | BreakWatch | Down
    ) -> None:
        match action:
            case OldList():
                self._changes_behind = action.changes
            case LateAnswer():
                self._answer_after = action.seconds
            case Reset():
                self.drop()
            case Down():
                self._api.faults.down_for(action.seconds)
            case DropAnswer():
                self._drop_answer = True
            case BreakWatch():
                self._break_watch = action

    async def _watch(self, call: Call) -> None:
        watch: Watch | None = None
        failure: ApiError | None = None
        try:
            watch = self._api.watch(call, self._break_watch)
        except ApiError as error:
            if error.code != 410:
                raise
            failure = error  # 410 is sent as an event of the stream
        await self._start(200, JSON, {})
        if watch is None:
            if failure is not None:
                await self._chunk(error_event(failure))
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        self._api.watches.add(watch)
        listener = asyncio.create_task(self._end_on_disconnect(watch))
        try:
            async for event in watch.events():
                await self._chunk(event)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except WatchBroken:
            self.drop()
            await self._disconnected()
        finally:
            listener.cancel()
            watch.close()
            self._api.watches.discard(watch)

    async def _end_on_disconnect(self, watch: Watch) -> None:
        await self._disconnected()
        watch.break_now(BreakWatch(how="end"))

    async def _reply(self, response: Response) -> None:
        if self._drop_answer:
            self.drop()
            await self._disconnected()
            return
        text = response.body
        body = text.encode() if isinstance(text, str) else _encode(text)
        if self._answer_after:
            await self._pause(self._answer_after)
        headers = {**response.headers, "content-length": str(len(body))}
        await self._start(response.status, response.content_type, headers)
        self._entry.sent_bytes += len(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _start(self, status: int, content_type: str, headers: dict[str, str]) -> None:
        self._entry.status = status
        pairs = [(b"content-type", content_type.encode()), (b"cache-control", b"no-cache, private")]
        pairs += [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def _chunk(self, event: Obj) -> None:
        line = _encode(event) + b"\n"
        self._entry.sent_bytes += len(line)
        await self._send({"type": "http.response.body", "body": line, "more_body": True})

    async def _body(self) -> bytes:
        chunks = []
        while True:
            message = await self._receive()
            chunks.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(chunks)

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _refusal(error: ApiError) -> Response:
    if error.page:
        return Response(error.code, error.message, TEXT)
    return Response(error.code, error.body())


def _canned(answer: Answer) -> Response:
    body = answer.body
    if body is None:
        body = ApiError(answer.status, "", f"answered with {answer.status} by a fault").body()
    content_type = TEXT if isinstance(body, str) else JSON
    return Response(answer.status, body, content_type, dict(answer.headers))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
