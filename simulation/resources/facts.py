"""What an account, a cluster and CAST AI hold, as facts that can be compared.

A fact is a text and its value. Ids and secrets that differ from run to run are replaced by what
they have to do with each other: an access key is `stored` in the secret or not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import yaml

from sandbox.castai_api.state import fingerprint
from simulation.resources.eks import FakeEks
from simulation.resources.world import API_KEY_SECRET, REGIONS, Place, World

Facts = dict[str, Any]

FOREIGN: Final = "foreign"
"""Part of every name and value that somebody else makes in a day."""
OTHERS_NAMESPACE: Final = f"{FOREIGN}/owner"
"""Annotation of the agent's namespace where others made it."""
KINDS: Final = (
    ("ClusterRole", ""),
    ("ClusterRoleBinding", ""),
    ("ConfigMap", "kube-system"),
    ("ConfigMap", "castai-agent"),
    ("Secret", "castai-agent"),
    ("ServiceAccount", "castai-agent"),
    ("Role", "castai-agent"),
    ("RoleBinding", "castai-agent"),
    ("Deployment", "castai-agent"),
    ("ResourceQuota", "castai-agent"),
    ("PodDisruptionBudget", "castai-agent"),
    ("Service", "castai-agent"),
    ("Namespace", ""),
)
"""Kinds of Kubernetes objects that the functions or others write, and where."""
_PLACE: Final = re.compile(
    r"(\S+-\d) (?:security group cast-([^/]+)-cluster/|secret castai-eks/([^/]+)/"
    r"|(\S+) (?:access entry |at CAST AI|[A-Z]))"
)
"""The region and the name of the cluster that a fact is of."""
_NAMES: Final = (
    (r"user (\S+?): access key .*", r"access key (?:\S+ )?of IAM user {}"),
    (r"(?:\S+-\d )?((?:user|role|policy|instance profile|security group|secret) \S+?)", "{}"),
    (r"\S+ \S+ access entry (\S+?)", "access entry (?:of )?{}"),
    (r"\S+ \S+ ConfigMap kube-system/aws-auth: \S+ (\S+?)", "entry of {} in kube-system/aws-auth"),
    (r"\S+ \S+ at CAST AI: principal", "CAST AI's principal for cluster"),
    (r"\S+ \S+ at CAST AI: credentials", r"cluster \S+ at CAST AI"),
    (r"\S+ \S+ (\w+) /?(\S+?)", "{} {}"),
)
"""What a fact is about, and the words of an error that name it. The next kind is a row."""
_GONE: Final = object()
_DEFAULTS: Final = ("default", "kube-root-ca.crt")


def of(world: World) -> Facts:
    """Everything in the world that a function could change."""
    state = (world.writes, len(world.keys_of_others))
    facts = _read(world, "account", state, lambda: _of_account(world))
    stored = _read(world, "secrets", state, lambda: ((k, text) for k, (_, text) in _keys(world)))
    facts |= _of_castai(world, stored)
    for place, eks in world.eks.items():
        facts |= _of_entries(place, eks)
        version = world.kubernetes[place].store.version
        facts |= _read(world, str(place), version, partial(_of_objects, world, place))
    return facts


def _read(
    world: World, what: str, state: object, read: Callable[[], Iterable[tuple[str, Any]]]
) -> Facts:
    """The facts of one part of the world. They are read once while its state is the same."""
    known = world.read.get(what)
    if known is None or known[0] != state:
        known = world.read[what] = (state, dict(read()))
    return dict(known[1])


def _of_account(world: World) -> Iterator[tuple[str, Any]]:
    yield from _of_iam(world, {key: region for key, (region, _) in _keys(world)})
    for region in REGIONS:
        yield from _of_region(world, region)


def ours(facts: Mapping[str, Any]) -> Facts:
    """The facts without what others made."""
    return {name: value for name, value in facts.items() if not _is_foreign(name, value)}


def marks(facts: Mapping[str, Any]) -> Facts:
    """What others made."""
    return {name: value for name, value in facts.items() if _is_foreign(name, value)}


def entries_of(facts: Mapping[str, Any], owner: str) -> set[str]:
    """The access entries that a resource made."""
    tagged = {name.partition(": tag ")[0] for name, value in facts.items() if value == owner}
    return {name for name in tagged if " access entry " in name and FOREIGN not in name}


def difference(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """A line for each fact that differs."""
    lines = [f"missing: {name} = {_short(wanted[name])}" for name in wanted if name not in found]
    lines += [f"left: {name} = {_short(found[name])}" for name in found if name not in wanted]
    lines += [
        f"differs: {name} = {_short(found[name])}, not {_short(wanted[name])}"
        for name in wanted
        if name in found and found[name] != wanted[name]
    ]
    return sorted(lines)


def is_of(fact: str, places: Collection[Place]) -> bool:
    """Whether a fact is of one of the clusters, or of the account, whose facts they share."""
    if not places:
        return False
    found = _PLACE.match(fact)
    return found is None or Place(found[1], found[2] or found[3] or found[4]) in places


def is_named(fact: str, error: str) -> bool:
    """Whether an error has the kind and the own name of the thing that a fact is about."""
    for thing, words in _NAMES:
        if found := re.match(rf"{thing}(?=: |$)", fact):
            name = words.format(*map(re.escape, found.groups()))
            return re.search(rf"{name}(?![\w/-])", error) is not None
    return fact in error


def without_used_namespaces(all_of_them: Facts, *parts: Facts) -> list[Facts]:
    """The facts without the agent's namespace in clusters where others use it, or made it.

    There it is not ours to make or to remove.
    """
    used = set()
    for name in all_of_them:
        region, _, rest = name.removeprefix(f"{FOREIGN} ").partition(" ")
        cluster, _, rest = rest.partition(" ")
        of_others = FOREIGN in name and ": " not in name
        if of_others and ("castai-agent/" in rest or rest.startswith("Namespace ")):
            used.add(f"{region} {cluster} Namespace /castai-agent")
    return [
        {name: value for name, value in part.items() if name.partition(": ")[0] not in used}
        for part in parts
    ]


def fact_of(line: str) -> str:
    """The fact of a line of a difference."""
    return line.partition(": ")[2].partition(" = ")[0]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 120 else f"{text[:120]}…"


def _is_foreign(name: str, value: object) -> bool:
    return FOREIGN in name or (isinstance(value, str) and FOREIGN in value)


def _tags(label: str, thing: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for tag in thing.get("Tags") or ():
        yield f"{label}: tag {tag['Key']}", tag.get("Value", "")


def _keys(world: World) -> Iterator[tuple[str, tuple[str, str]]]:
    """By access key id in our secrets: the region of the secret, and id and secret together."""
    for region in REGIONS:
        for name, text in _secret_texts(world, region):
            if name != API_KEY_SECRET and (stored := _json(text)).get("accessKeyId"):
                both = f"{stored['accessKeyId']}{stored['secretAccessKey']}"
                yield stored["accessKeyId"], (region, both)


def _secret_texts(world: World, region: str) -> Iterator[tuple[str, str]]:
    secrets = world.client("secretsmanager", region)
    for each in secrets.list_secrets()["SecretList"]:
        if not each.get("DeletedDate"):
            yield (
                each["Name"],
                secrets.get_secret_value(SecretId=each["Name"]).get("SecretString", ""),
            )


def _json(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _of_iam(world: World, stored: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    iam = world.client("iam", REGIONS[0])
    details = iam.get_account_authorization_details(Filter=["User", "Role", "LocalManagedPolicy"])
    for user in details["UserDetailList"]:
        label = f"user {user['UserName']}"
        yield label, user["Path"]
        yield from _of_principal(label, user, user.get("UserPolicyList", ()))
        listed = iam.list_access_keys(UserName=user["UserName"])["AccessKeyMetadata"]
        for number, key in enumerate(sorted(listed, key=lambda k: k["AccessKeyId"] not in stored)):
            made_by = FOREIGN if key["AccessKeyId"] in world.keys_of_others else "not in a secret"
            where = stored.get(key["AccessKeyId"], made_by)
            yield f"{label}: access key {number} ({where})", key["Status"]
    for role in details["RoleDetailList"]:
        label = f"role {role['RoleName']}"
        yield label, role["Path"]
        yield f"{label}: trust", _document(role["AssumeRolePolicyDocument"])
        boundary = role.get("PermissionsBoundary") or {}
        if boundary.get("PermissionsBoundaryArn"):
            yield f"{label}: boundary", boundary["PermissionsBoundaryArn"]
        yield from _of_principal(label, role, role.get("RolePolicyList", ()))
    for policy in details["Policies"]:
        label = f"policy {policy['Arn']}"
        default = next(v for v in policy["PolicyVersionList"] if v.get("IsDefaultVersion"))
        yield label, _document(default["Document"])
        yield from _tags(label, iam.list_policy_tags(PolicyArn=policy["Arn"]))
    for profile in iam.list_instance_profiles()["InstanceProfiles"]:
        label = f"instance profile {profile['InstanceProfileName']}"
        yield label, ", ".join(role["RoleName"] for role in profile["Roles"])
        yield from _tags(label, profile)


def _of_principal(label: str, thing: Mapping[str, Any], inline: Any) -> Iterator[tuple[str, Any]]:
    for policy in thing.get("AttachedManagedPolicies") or ():
        yield f"{label}: {policy['PolicyArn']}", "attached"
    for policy in inline or ():
        yield f"{label}: inline {policy['PolicyName']}", _document(policy["PolicyDocument"])
    yield from _tags(label, thing)


def _document(document: object) -> str:
    if isinstance(document, str):
        document = json.loads(document)
    return json.dumps(document, sort_keys=True)


def _of_region(world: World, region: str) -> Iterator[tuple[str, Any]]:
    for group in world.client("ec2", region).describe_security_groups()["SecurityGroups"]:
        label = f"{region} security group {group['GroupName']}"
        yield label, group["VpcId"]
        for way in ("IpPermissions", "IpPermissionsEgress"):
            for rule in group[way]:
                peers = [
                    "itself" if pair["GroupId"] == group["GroupId"] else pair["GroupId"]
                    for pair in rule.get("UserIdGroupPairs", ())
                ]
                peers += [each["CidrIp"] for each in rule.get("IpRanges", ())]
                for peer in peers:
                    yield f"{label}: {way} {rule['IpProtocol']} {peer}", True
        yield from _tags(label, group)
    for interface in world.client("ec2", region).describe_network_interfaces()["NetworkInterfaces"]:
        groups = ", ".join(sorted(group["GroupName"] for group in interface["Groups"]))
        yield f"{region} {FOREIGN} network interface in {groups}", interface["SubnetId"]
    secrets = world.client("secretsmanager", region)
    for secret in secrets.list_secrets()["SecretList"]:
        label = f"{region} secret {secret['Name']}"
        yield label, "being deleted" if secret.get("DeletedDate") else secret.get("KmsKeyId")
        yield from _tags(label, secret)


def _of_entries(place: Place, eks: FakeEks) -> Iterator[tuple[str, Any]]:
    for arn, entry in eks.entries.items():
        label = f"{place.region} {place.name} access entry {arn}"
        bound = "bound" if entry.principal_id == eks.unique_id(arn) else "of a former principal"
        yield label, f"{entry.kind}, {bound}"
        for group in entry.groups:
            yield f"{label}: group {group}", True
        for policy in entry.policies:
            yield f"{label}: {policy}", True
        for key, value in entry.tags.items():
            yield f"{label}: tag {key}", value


def _of_objects(world: World, place: Place) -> Iterator[tuple[str, Any]]:
    cluster = world.kubernetes[place]
    for kind, namespace in KINDS:
        for obj in cluster.list(kind, namespace):
            metadata = obj["metadata"]
            if _is_standard(obj):
                continue
            label = f"{place.region} {place.name} {kind} {namespace}/{metadata['name']}"
            if (kind, metadata["name"]) == ("ConfigMap", "aws-auth"):
                yield from _of_aws_auth(label, obj.get("data") or {})
                continue
            if OTHERS_NAMESPACE in (metadata.get("annotations") or {}):
                label = f"{FOREIGN} {label}"
            yield from _of_object(label, obj)


def _of_object(label: str, obj: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """An object's fields; those with FOREIGN in their value and those that others own apart."""
    metadata = obj["metadata"]
    rest = {k: v for k, v in obj.items() if k not in {"metadata", "status"}}
    marks: Facts = {}
    yield label, json.dumps(_without_foreign(rest, "", marks), sort_keys=True)
    for path, value in marks.items():
        yield f"{label}: field {path} ({FOREIGN})", json.dumps(value, sort_keys=True)
    for entry in metadata.get("managedFields") or ():
        if FOREIGN in entry["manager"]:
            fields = json.dumps(entry["fieldsV1"], sort_keys=True)
            yield f"{label}: fields of {entry['manager']} by {entry['operation']}", fields
    for part in ("labels", "annotations"):
        for key, value in (metadata.get(part) or {}).items():
            if not key.startswith(("deployment.kubernetes.io/", "kubectl.")):
                yield f"{label}: {part} {key}", value


def _without_foreign(value: Any, path: str, marks: Facts) -> Any:
    """The value without what others put into it, which is added to `marks`."""
    if isinstance(value, dict):
        found = {key: _without_foreign(each, f"{path}.{key}", marks) for key, each in value.items()}
        return {key: each for key, each in found.items() if each is not _GONE}
    if isinstance(value, list):
        kept: list[Any] = []
        for name, each in sorted(map(_named, value), key=lambda named: named[0]):
            if FOREIGN in name:
                marks[f"{path}.{name}"] = each
            else:
                kept.append(_without_foreign(each, f"{path}.{name or len(kept)}", marks))
        return kept
    if isinstance(value, str) and FOREIGN in value:
        marks[path] = value
        return _GONE
    return value


def _named(item: Any) -> tuple[str, Any]:
    """An item of a list and its name. An item that was removed and comes again is the last one."""
    if isinstance(item, dict):
        return str(item.get("name", "")), item
    return (item if isinstance(item, str) and FOREIGN in item else ""), item


def _is_standard(obj: Mapping[str, Any]) -> bool:
    """Whether every cluster has the object."""
    name = obj["metadata"]["name"]
    labels = obj["metadata"].get("labels") or {}
    is_namespace = obj["kind"] == "Namespace" and (name == "default" or name.startswith("kube-"))
    return is_namespace or name in _DEFAULTS or "kubernetes.io/bootstrapping" in labels


def _of_aws_auth(label: str, data: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for key, text in data.items():
        for item in yaml.safe_load(text) or ():
            arn = item.get("rolearn") or item.get("userarn")
            groups = ",".join(sorted(map(str, item.get("groups") or ())))
            yield f"{label}: {key} {arn}", f"{item.get('username')} {groups}"


def _of_castai(world: World, keys: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    fingerprints = {fingerprint(text) for text in keys.values()}
    for cluster in world.castai.clusters.values():
        label = f"{cluster.region} {cluster.name} at CAST AI"
        held = cluster.credentials
        if held.get("kind") == "key":
            stored = held["fingerprint"] in fingerprints
            yield f"{label}: credentials", "the stored key" if stored else "a key that nobody has"
        elif held:
            yield f"{label}: credentials", held["role"]
        if cluster.principal:
            yield f"{label}: principal", cluster.principal
