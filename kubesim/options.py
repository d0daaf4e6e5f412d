"""The options of a request: its query parameters, and the DeleteOptions of its body.

The checks and their order are those of apiserver's handlers: values that cannot be decoded (400),
then invalid values (422).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kubesim import errors
from kubesim.errors import Cause
from kubesim.registry import Deletion
from kubesim.resources import Obj
from kubesim.store import version_of

Query = Mapping[str, str]

_FIELD_MANAGER_LENGTH = 128
_FIELD_VALIDATION = ("", "Ignore", "Strict", "Warn")
_PROPAGATION = ("Foreground", "Background", "Orphan")
_EXACT, _NOT_OLDER = "Exact", "NotOlderThan"


def flag(query: Query, name: str) -> bool:
    """A boolean parameter: each value but `false` and `0` is true."""
    return name in query and query[name].lower() not in ("false", "0")


def number(query: Query, name: str) -> int | None:
    """An integer parameter.

    Raises ApiError (400: it is none).
    """
    if name not in query:
        return None
    try:
        return int(query[name])
    except ValueError as fault:
        message = f'strconv.ParseInt: parsing "{query[name]}": invalid syntax'
        raise errors.bad_request(message) from fault


def _dry_run_causes(values: list[str]) -> list[Cause]:
    if set(values) <= {"All"}:
        return []
    return [errors.not_supported("dryRun", values, ["All"])]


def _field_manager_causes(manager: str) -> list[Cause]:
    found = []
    if len(manager.encode()) > _FIELD_MANAGER_LENGTH:
        found.append(errors.too_long("fieldManager", _FIELD_MANAGER_LENGTH))
    found += [
        errors.invalid_value("fieldManager", manager, f"invalid character {char!r}")
        for char in manager
        if not char.isprintable()
    ]
    return found


def check_write(kind: str, query: Query, *, apply: bool = False) -> None:
    """Check CreateOptions, UpdateOptions or PatchOptions.

    Raises ApiError (422: an option is invalid).
    """
    found = []
    if apply and not query.get("fieldManager"):
        found.append(errors.required("fieldManager", "is required for apply patch"))
    if kind == "PatchOptions" and not apply and "force" in query:
        found.append(errors.forbidden_field("force", "may not be specified for non-apply patch"))
    found += _field_manager_causes(query.get("fieldManager", ""))
    found += _dry_run_causes([query["dryRun"]] if "dryRun" in query else [])
    validation = query.get("fieldValidation", "")
    if validation not in _FIELD_VALIDATION:
        found.append(errors.not_supported("fieldValidation", validation, _FIELD_VALIDATION))
    if found:
        raise errors.invalid_options(kind, found)


def deletion_of(query: Query) -> Deletion:
    """The DeleteOptions of the query of a request without a body.

    Raises ApiError (400 or 422, as above).
    """
    given: Obj = {}
    if (grace := number(query, "gracePeriodSeconds")) is not None:
        given["gracePeriodSeconds"] = grace
    if "propagationPolicy" in query:
        given["propagationPolicy"] = query["propagationPolicy"]
    if "orphanDependents" in query:
        given["orphanDependents"] = flag(query, "orphanDependents")
    if "dryRun" in query:
        given["dryRun"] = [query["dryRun"]]
    return deletion(given)


def deletion(given: Obj) -> Deletion:
    """Decoded DeleteOptions.

    Raises ApiError (422: an option is invalid).
    """
    policy, orphan = given.get("propagationPolicy"), given.get("orphanDependents")
    found = []
    if policy is not None and orphan is not None:
        why = "orphanDependents and deletionPropagation cannot be both set"
        found.append(errors.invalid_value("propagationPolicy", policy, why))
    if policy is not None and policy not in _PROPAGATION:
        found.append(errors.not_supported("propagationPolicy", policy, (*_PROPAGATION, "nil")))
    dry_run = given.get("dryRun") or []
    found += _dry_run_causes(dry_run)
    if found:
        raise errors.invalid_options("DeleteOptions", found)
    preconditions = given.get("preconditions") or {}
    grace = given.get("gracePeriodSeconds")
    return Deletion(
        # kube-apiserver treats each negative value as 1 second.
        grace=1 if grace is not None and grace < 0 else grace,
        uid=preconditions.get("uid"),
        resource_version=preconditions.get("resourceVersion"),
        propagation=policy or {True: "Orphan", False: "Background", None: ""}[orphan],
        dry_run=bool(dry_run),
    )


@dataclass(frozen=True)
class Paging:
    """Which part of a list, at which version."""

    limit: int = 0
    token: str = ""
    version: int | None = None
    """None: the newest."""
    exact: bool = False
    """Exactly at `version`; otherwise not older than it."""


def paging_of(query: Query) -> Paging:
    """The part and the version that a list request asks for.

    Raises ApiError (400 or 422, as above).
    """
    limit = number(query, "limit") or 0
    number(query, "timeoutSeconds")
    version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    token = query.get("continue", "")
    _check_match(version, match, token, initial_events="sendInitialEvents" in query)
    asked = _list_version(version) if not token else None
    legacy = limit > 0 and not match  # a limited list from a version is of that version
    return Paging(max(limit, 0), token, asked or None, match == _EXACT or legacy)


def _check_match(version: str, match: str, token: str, *, initial_events: bool) -> None:
    field = "resourceVersionMatch"
    found = []
    if match and not version:
        why = f"{field} is forbidden unless resourceVersion is provided"
        found.append(errors.forbidden_field(field, why))
    if match and token:
        why = f"{field} is forbidden when continue is provided"
        found.append(errors.forbidden_field(field, why))
    if match not in ("", _EXACT, _NOT_OLDER):
        found.append(errors.not_supported(field, match, (_EXACT, _NOT_OLDER, "")))
    if match == _EXACT and version == "0":
        why = f'{field} "exact" is forbidden for resourceVersion "0"'
        found.append(errors.forbidden_field(field, why))
    if initial_events:
        why = "sendInitialEvents is forbidden for list"
        found.append(errors.forbidden_field("sendInitialEvents", why))
    if found:
        raise errors.invalid_options("ListOptions", found)


def check_watch(query: Query) -> None:
    """Check the options of a watch.

    Raises ApiError (422: an option is invalid).
    """
    field, match = "resourceVersionMatch", query.get("resourceVersionMatch", "")
    found = []
    if "sendInitialEvents" in query and match != _NOT_OLDER:
        why = f"sendInitialEvents requires setting {field} to {_NOT_OLDER}"
        found.append(errors.forbidden_field(field, why))
    elif match and "sendInitialEvents" not in query:
        why = f"{field} is forbidden for watch unless sendInitialEvents is provided"
        found.append(errors.forbidden_field(field, why))
    if match and match != _NOT_OLDER:
        found.append(errors.not_supported(field, match, (_NOT_OLDER,)))
    if found:
        raise errors.invalid_options("ListOptions", found)


def _list_version(text: str) -> int:
    try:
        return version_of(text)
    except errors.ApiError as fault:
        raise errors.bad_request(f"invalid resource version: {fault.message}") from fault
