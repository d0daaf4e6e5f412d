"""Authorization by the RBAC objects of the cluster and by EKS access policies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kubesim import access_policies, errors
from kubesim.authentication import User
from kubesim.errors import ApiError
from kubesim.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
    Obj,
    Resource,
)
from kubesim.store import Store

MASTERS = "system:masters"
_PUBLIC = ["/healthz", "/livez", "/readyz", "/version", "/version/"]
_DISCOVERY = [*_PUBLIC, "/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"]
_SELF_REVIEW = {
    "apiGroups": ["authorization.k8s.io"],
    "resources": ["selfsubjectaccessreviews"],
    "verbs": ["create"],
}

BOOTSTRAP: tuple[tuple[str, list[dict[str, Any]], str], ...] = (
    (
        "cluster-admin",
        [
            {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
            {"nonResourceURLs": ["*"], "verbs": ["*"]},
        ],
        MASTERS,
    ),
    ("system:discovery", [{"nonResourceURLs": _DISCOVERY, "verbs": ["get"]}],
     "system:authenticated"),
    ("system:basic-user", [_SELF_REVIEW], "system:authenticated"),
    ("system:public-info-viewer", [{"nonResourceURLs": _PUBLIC, "verbs": ["get"]}],
     "system:unauthenticated"),
)  # fmt: skip
"""ClusterRole, its rules, and the group that a binding of the same name binds it to."""


@dataclass(frozen=True)
class Attributes:
    """One request, as the authorizer gets it."""

    verb: str
    resource: str = ""
    """Includes the subresource: `pods/eviction`."""
    group: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    """The path of a non-resource request."""


class Authorizer:
    """RBAC with the objects of a store. A member of system:masters may do everything."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def allows(self, user: User, attributes: Attributes) -> bool:
        if MASTERS in user.groups:
            return True
        return any(_covers(rule, attributes) for rule in self._rules(user, attributes.namespace))

    def check(self, user: User, attributes: Attributes) -> None:
        """Check that the request is allowed.

        Raises ApiError (403, with kube-apiserver's message).
        """
        if not self.allows(user, attributes):
            raise _refusal(user, attributes)

    def impersonated(self, user: User, name: str, groups: list[str]) -> User:
        """The user that the Impersonate headers name.

        Raises ApiError (403: the caller may not impersonate this user or one of these groups).
        """
        self.check(user, Attributes("impersonate", "users", name=name))
        for group in groups:
            self.check(user, Attributes("impersonate", "groups", name=group))
        return User(name, (*groups, "system:authenticated"))

    def check_grant(self, user: User, resource: Resource, obj: Obj) -> None:
        """Prevent privilege escalation: the user must hold all rights of a written role or binding.

        The verb `escalate` on a role, or `bind` for a binding, also allows the write.

        Raises ApiError (403 with a list of the missing rights, 404: a binding's role is missing).
        """
        namespace = obj["metadata"].get("namespace", "")
        name = obj["metadata"].get("name", "")
        if resource in (ROLES, CLUSTER_ROLES):
            target, verb, rules = resource, "escalate", obj.get("rules") or []
            target_name = name
        elif resource in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS):
            reference = obj.get("roleRef") or {}
            target = ROLES if reference.get("kind") == "Role" else CLUSTER_ROLES
            verb, target_name = "bind", reference.get("name", "")
        else:
            return
        may = Attributes(verb, target.plural, target.group, namespace, target_name)
        if self.allows(user, may):
            return
        if verb == "bind":
            role = self._store.get(target, namespace if target is ROLES else "", target_name)
            if role is None:
                raise errors.not_found(target, target_name)
            rules = role.get("rules") or []
        missing = [rule for rule in _atoms(rules) if not self._holds(user, namespace, rule)]
        if missing:
            raise _escalation(user, resource, name, missing)

    def _holds(self, user: User, namespace: str, atom: Obj) -> bool:
        if MASTERS in user.groups:
            return True
        return any(_contains(rule, atom) for rule in self._rules(user, namespace))

    def _rules(self, user: User, namespace: str) -> Iterator[Obj]:
        yield from access_policies.rules(user.groups, namespace)
        for binding in self._store.objects(CLUSTER_ROLE_BINDINGS):
            if _binds(binding, user):
                yield from self._role(binding, "")
        if namespace:
            for binding in self._store.objects(ROLE_BINDINGS, namespace):
                if _binds(binding, user):
                    yield from self._role(binding, namespace)

    def _role(self, binding: Obj, namespace: str) -> Iterable[Obj]:
        reference = binding["roleRef"]
        resource, space = (
            (ROLES, namespace) if reference.get("kind") == "Role" else (CLUSTER_ROLES, "")
        )
        role = self._store.get(resource, space, reference["name"])
        return (role or {}).get("rules") or ()


def _binds(binding: Obj, user: User) -> bool:
    space = binding["metadata"].get("namespace", "")
    for subject in binding.get("subjects") or ():
        kind, name = subject.get("kind"), subject.get("name", "")
        if kind == "User" and name == user.name:
            return True
        if kind == "Group" and name in user.groups:
            return True
        account = f"system:serviceaccount:{subject.get('namespace', space)}:{name}"
        if kind == "ServiceAccount" and account == user.name:
            return True
    return False


def _covers(rule: Obj, attributes: Attributes) -> bool:
    if not _has(rule, "verbs", attributes.verb):
        return False
    if attributes.path:
        return any(_path_covers(url, attributes.path) for url in rule.get("nonResourceURLs") or ())
    names = rule.get("resourceNames")
    return (
        _has(rule, "apiGroups", attributes.group)
        and _resource_covers(rule.get("resources") or (), attributes.resource)
        and (not names or attributes.name in names)
    )


def _has(rule: Obj, field: str, value: str) -> bool:
    values = rule.get(field) or ()
    return "*" in values or value in values


def _resource_covers(resources: Iterable[str], resource: str) -> bool:
    _, _, subresource = resource.partition("/")
    either = {"*", resource} | ({f"*/{subresource}"} if subresource else set())
    return bool(either & set(resources))


def _path_covers(url: str, path: str) -> bool:
    return url == path or (url.endswith("*") and path.startswith(url[:-1]))


def _atoms(rules: Iterable[Obj]) -> Iterator[Obj]:
    """Split the rules: each result has one verb, one resource and one group."""
    for rule in rules:
        for verb in rule.get("verbs") or ():
            for url in rule.get("nonResourceURLs") or ():
                yield {"nonResourceURLs": [url], "verbs": [verb]}
            for group in rule.get("apiGroups") or ():
                for resource in rule.get("resources") or ():
                    atom = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
                    names = rule.get("resourceNames")
                    yield from (
                        [{**atom, "resourceNames": [name]} for name in names] if names else [atom]
                    )


def _contains(rule: Obj, atom: Obj) -> bool:
    """Whether a rule grants all that an atom grants."""
    if not _has(rule, "verbs", atom["verbs"][0]):
        return False
    if "nonResourceURLs" in atom:
        url = atom["nonResourceURLs"][0]
        return any(_path_covers(held, url) for held in rule.get("nonResourceURLs") or ())
    held_names = rule.get("resourceNames")
    return (
        _has(rule, "apiGroups", atom["apiGroups"][0])
        and _resource_covers(rule.get("resources") or (), atom["resources"][0])
        and (not held_names or set(atom.get("resourceNames") or [""]) <= set(held_names))
    )


def _refusal(user: User, attributes: Attributes) -> ApiError:
    if attributes.path:
        message = f'forbidden: User "{user.name}" cannot {attributes.verb} path "{attributes.path}"'
        return ApiError(403, "Forbidden", message, details={})
    plural = attributes.resource.partition("/")[0]
    subject = f"{plural}.{attributes.group}" if attributes.group else plural
    if attributes.name:
        subject += f' "{attributes.name}"'
    scope = (
        f'in the namespace "{attributes.namespace}"'
        if attributes.namespace
        else "at the cluster scope"
    )
    message = (
        f'{subject} is forbidden: User "{user.name}" cannot {attributes.verb} resource'
        f' "{attributes.resource}" in API group "{attributes.group}" {scope}'
    )
    details = {"name": attributes.name} if attributes.name else {}
    if attributes.group:
        details["group"] = attributes.group
    details["kind"] = plural
    return ApiError(403, "Forbidden", message, details=details)


def _escalation(user: User, resource: Resource, name: str, missing: list[Obj]) -> ApiError:
    groups = " ".join(f'"{group}"' for group in user.groups)
    lines = "\n".join(_described(rule) for rule in missing)
    why = (
        f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not'
        f" currently held:\n{lines}"
    )
    return errors.forbidden(resource, name, why)


def _described(rule: Obj) -> str:
    fields = (
        ("APIGroups", "apiGroups"),
        ("Resources", "resources"),
        ("ResourceNames", "resourceNames"),
        ("NonResourceURLs", "nonResourceURLs"),
        ("Verbs", "verbs"),
    )
    parts = [
        f"{title}:[{' '.join(_quoted(value) for value in rule[key])}]"
        for title, key in fields
        if key in rule
    ]
    return "{" + ", ".join(parts) + "}"


def _quoted(value: str) -> str:
    return f'"{value}"'
