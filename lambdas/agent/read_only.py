"""Prove that the objects to apply can only read. Pure.

Every manifest is checked: our own, the user's, and one from CAST AI's API. Everything that is not
known to be harmless is refused. The error names the object and the rule:

* cluster-wide only the verbs get, list and watch; not on Secrets, and not on resources whose
  reading changes something (`get pods/exec` runs a command);
* no wildcards; no escalate, bind or impersonate; no role that takes its rules from other roles;
* bindings only of the manifest's own roles to the manifest's own service accounts;
* writes only in the agent's own namespace;
* no pod with access to its node: no host namespaces, host paths, privileged mode, capabilities;
* no kind that runs something by itself or extends the API: webhooks, DaemonSets, Jobs, CRDs, …
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lambdas.common.errors import PermanentError
from lambdas.common.text import REFUSAL_LIMIT, cut

READ: Final = frozenset({"get", "list", "watch"})
READABLE_URLS: Final = frozenset({"/version", "/healthz", "/livez", "/readyz"})

_NAMESPACED: Final = frozenset(
    {
        ("v1", "ConfigMap"),
        ("v1", "ResourceQuota"),
        ("v1", "Secret"),
        ("v1", "ServiceAccount"),
        ("apps/v1", "Deployment"),
        ("policy/v1", "PodDisruptionBudget"),
        ("rbac.authorization.k8s.io/v1", "Role"),
        ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    }
)
_CLUSTER_WIDE: Final = frozenset(
    {
        ("v1", "Namespace"),
        ("rbac.authorization.k8s.io/v1", "ClusterRole"),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    }
)
# Allowed in every namespace. A rule that writes outside the agent's namespace is refused.
_IN_ANY_NAMESPACE: Final = frozenset({"Role", "RoleBinding"})
_RBAC: Final = "rbac.authorization.k8s.io"
# https://kubernetes.io/docs/concepts/security/rbac-good-practices/#privilege-escalation-risks
_ACTING: Final = frozenset(
    {"pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "services/proxy", "nodes/proxy"}
)
_ESCALATING: Final = frozenset({"escalate", "bind", "impersonate"})
_HARMLESS_VOLUMES: Final = frozenset(
    {"configMap", "secret", "emptyDir", "projected", "downwardAPI"}
)

Object = Mapping[str, Any]


class NotReadOnlyError(PermanentError):
    """The manifest allows more than reading. `violations` names each reason."""

    def __init__(self, violations: Sequence[str]) -> None:
        super().__init__(
            "Take these out of the manifest, the agent reads and nothing else:\n"
            + "\n".join(f"- {each}" for each in violations)
        )
        self.violations = tuple(violations)


def prove(objects: Iterable[Object], *, namespace: str) -> None:
    """Raise NotReadOnlyError unless every object is proved harmless."""
    violations = list(violations_of(list(objects), namespace=namespace))
    if violations:
        raise NotReadOnlyError(violations)


def violations_of(objects: Sequence[object], *, namespace: str) -> Iterator[str]:
    """A sentence for each object, rule or subject that is not proved harmless."""
    manifest = _Manifest.of([each for each in objects if _is_object(each)], namespace)
    for each in objects:
        if isinstance(each, Mapping) and _is_object(each):
            yield from _of_object(each, manifest)
        else:
            yield f"{type(each).__name__}: is not a Kubernetes object with a kind and a name"


@dataclass(frozen=True)
class _Manifest:
    """The roles and service accounts to which bindings may refer."""

    namespace: str
    cluster_roles: frozenset[str]
    roles: frozenset[tuple[str, str]]
    accounts: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, objects: Sequence[Any], namespace: str) -> _Manifest:
        """Collect the names."""

        def named(kind: str) -> frozenset[tuple[str, str]]:
            return frozenset(
                (str(each["metadata"].get("namespace", "")), str(each["metadata"]["name"]))
                for each in objects
                if each["kind"] == kind
            )

        cluster_roles = frozenset(name for _, name in named("ClusterRole"))
        return cls(namespace, cluster_roles, named("Role"), named("ServiceAccount"))


def _is_object(each: object) -> bool:
    if not isinstance(each, Mapping):
        return False
    metadata = each.get("metadata")
    return (
        isinstance(each.get("apiVersion"), str)
        and isinstance(each.get("kind"), str)
        and isinstance(metadata, Mapping)
        and isinstance(metadata.get("name"), str)
    )


def _of_object(obj: Object, manifest: _Manifest) -> Iterator[str]:
    kind, name = obj["kind"], obj["metadata"]["name"]
    where = obj["metadata"].get("namespace", "")
    title = cut(f"{kind} {where}/{name}" if where else f"{kind} {name}")
    if (obj["apiVersion"], kind) in _CLUSTER_WIDE:
        if where:
            yield f"{title}: has a namespace, which this kind does not"
        if kind == "Namespace" and name != manifest.namespace:
            yield f"{title}: is not the agent's namespace {manifest.namespace}"
    elif (obj["apiVersion"], kind) not in _NAMESPACED:
        version = cut(obj["apiVersion"])
        yield f"{title}: is of a kind ({version}) that a read-only agent does not need"
        return
    elif where != manifest.namespace and kind not in _IN_ANY_NAMESPACE:
        yield f"{title}: is outside the agent's namespace {manifest.namespace}"
    try:
        for sentence in _OF_KIND.get(kind, _nothing)(obj, manifest):
            yield f"{title}: {cut(sentence, REFUSAL_LIMIT)}"
    except (KeyError, TypeError, AttributeError):  # a list or a map is missing, or something else
        yield f"{title}: {_UNREADABLE.get(kind, 'cannot be read')}"


def _nothing(_: Object, __: _Manifest) -> Iterator[str]:
    return iter(())


def _of_role(role: Object, manifest: _Manifest) -> Iterator[str]:
    if role.get("aggregationRule"):
        yield "takes its rules from other roles (aggregationRule)"
    for label in role["metadata"].get("labels") or {}:
        if str(label).startswith(f"{_RBAC}/aggregate-to-"):
            yield f"adds its rules to other roles (label {label})"
    own = role["kind"] == "Role" and role["metadata"].get("namespace") == manifest.namespace
    rules = role.get("rules") or []
    if not isinstance(rules, list):
        yield "its rules are not a list"
        return
    for number, rule in enumerate(rules, 1):
        for sentence in _of_rule(rule, own_namespace=own):
            yield f"rule {number} ({_shown(rule)}): {sentence}"


def _of_rule(rule: object, *, own_namespace: bool) -> Iterator[str]:
    if not isinstance(rule, Mapping) or not all(isinstance(value, list) for value in rule.values()):
        yield "is not a rule"
        return
    verbs = {str(verb) for verb in rule.get("verbs", ())}
    groups = {str(group) for group in rule.get("apiGroups", ())}
    resources = {str(resource) for resource in rule.get("resources", ())}
    urls = {str(url) for url in rule.get("nonResourceURLs", ())}
    for field, values in (("verbs", verbs), ("apiGroups", groups), ("resources", resources)):
        if any("*" in value for value in values):
            yield f"has a wildcard in {field}"
    for words, found in (
        ("gives further permissions", verbs & _ESCALATING),
        ("reads URLs that are not allowed", urls - READABLE_URLS),
        ("reading these changes something", resources & _ACTING),
    ):
        if found:
            yield f"{words}: {_list(found)}"
    writing = verbs - READ - _ESCALATING - {"*"}
    if writing and not own_namespace:
        yield f"writes outside the agent's namespace: {_list(writing)}"
    if writing and own_namespace and _RBAC in groups:
        yield f"changes permissions: {_list(writing)}"
    if not own_namespace and "secrets" in {each.partition("/")[0] for each in resources}:
        yield "reads Secrets"


def _of_binding(binding: Object, manifest: _Manifest) -> Iterator[str]:
    reference = binding.get("roleRef")
    if not isinstance(reference, Mapping):
        yield "names no role"
        return
    kind, name = reference.get("kind"), str(reference.get("name"))
    where = str(binding["metadata"].get("namespace", ""))
    known = (
        name in manifest.cluster_roles
        if kind == "ClusterRole"
        else (where, name) in manifest.roles and binding["kind"] == "RoleBinding"
    )
    if not known or reference.get("apiGroup", _RBAC) != _RBAC:
        yield f"binds {kind} {name}, whose rules are not in this manifest"
    for subject in binding.get("subjects") or []:
        if not _is_own_account(subject, manifest):
            yield f"binds its role to {_shown(subject)}, not to a ServiceAccount of the manifest"


def _is_own_account(subject: object, manifest: _Manifest) -> bool:
    return (
        isinstance(subject, Mapping)
        and subject.get("kind") == "ServiceAccount"
        and (str(subject.get("namespace", "")), str(subject.get("name"))) in manifest.accounts
    )


def _of_deployment(deployment: Object, manifest: _Manifest) -> Iterator[str]:
    pod = deployment["spec"]["template"]["spec"]
    containers = [*pod["containers"], *(pod.get("initContainers") or [])]
    yield from _of_pod(pod, manifest)
    for container in containers:
        for sentence in _of_container(container):
            yield f"container {container.get('name')}: {sentence}"


def _of_pod(pod: Object, manifest: _Manifest) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"shares a namespace of its node ({field})"
    for volume in pod.get("volumes") or []:
        for source in set(volume) - {"name"} - _HARMLESS_VOLUMES:
            yield f"volume {volume.get('name')} is a {source}"
    account = pod.get("serviceAccountName", pod.get("serviceAccount", "default"))
    if (manifest.namespace, account) not in manifest.accounts:
        yield f"runs as ServiceAccount {account}, which is not in this manifest"
    if (pod.get("securityContext") or {}).get("windowsOptions"):
        yield "has windowsOptions"


def _of_container(container: Object) -> Iterator[str]:
    context = container.get("securityContext") or {}
    if context.get("privileged"):
        yield "is privileged"
    if added := (context.get("capabilities") or {}).get("add"):
        yield f"adds capabilities: {_list(added)}"
    if context.get("procMount", "Default") != "Default":
        yield "unmasks /proc"
    for port in container.get("ports") or []:
        if port.get("hostPort"):
            yield f"uses port {port['hostPort']} of its node"


def _of_secret(secret: Object, _: _Manifest) -> Iterator[str]:
    if secret.get("type", "Opaque") != "Opaque":
        # Kubernetes would fill a token Secret with the credentials of a service account.
        yield f"is of type {secret['type']}"


def _list(values: Iterable[object]) -> str:
    return ", ".join(sorted(str(value) for value in values))


def _shown(rule: object) -> str:
    """A rule or a subject in one line, for a message."""
    if not isinstance(rule, Mapping):
        return str(rule)[:80]
    parts = (
        f"{key}: {_list(value) if isinstance(value, list) else value}"
        for key, value in rule.items()
    )
    return "; ".join(parts)[:200]


_UNREADABLE: Final = {"Deployment": "has no readable pod template"}
_OF_KIND: Final = {
    "ClusterRole": _of_role,
    "Role": _of_role,
    "ClusterRoleBinding": _of_binding,
    "RoleBinding": _of_binding,
    "Deployment": _of_deployment,
    "Secret": _of_secret,
}
