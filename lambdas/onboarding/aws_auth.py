"""Add and remove entries of the ConfigMap kube-system/aws-auth without changing the rest.

Each key of the ConfigMap holds a text that people and tools write: block YAML, flow YAML or JSON,
with comments, anchors and different line ends. So the text is edited at one place and is never
written as a whole. The edited text is parsed again: only this entry may differ. Otherwise the edit
is refused, and the error shows the entry to change by hand.

Pure: the caller reads and writes the ConfigMap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import dropwhile
from typing import Any, Final

import yaml

from lambdas.common.errors import PermanentError
from lambdas.common.names import SPOT_HANDLER_GROUP
from lambdas.common.text import cut, masked
from lambdas.onboarding.policies.node_role import NODE_ACCESS_GROUPS

CONFIG_MAP: Final = "kube-system/aws-auth"
NODE_USERNAME: Final = "system:node:{{EC2PrivateDNSName}}"
ADMIN_GROUPS: Final = ("system:masters",)
SPOT_HANDLER_GROUPS: Final = (SPOT_HANDLER_GROUP,)


class MapKey(StrEnum):
    """A key of the ConfigMap."""

    ROLES = "mapRoles"
    USERS = "mapUsers"


_ARN_KEY: Final = {MapKey.ROLES: "rolearn", MapKey.USERS: "userarn"}


class AwsAuthError(PermanentError):
    """The ConfigMap was not changed. The message ends with the entry to change by hand."""


@dataclass(frozen=True)
class Entry:
    """One IAM principal with its Kubernetes user name and groups."""

    map_key: MapKey
    arn: str
    username: str
    groups: tuple[str, ...]

    def as_data(self) -> dict[str, Any]:
        return {
            _ARN_KEY[self.map_key]: self.arn,
            "username": self.username,
            "groups": list(self.groups),
        }


def node_entry(role_arn: str) -> Entry:
    """The nodes that CAST AI adds."""
    return Entry(MapKey.ROLES, without_path(role_arn), NODE_USERNAME, NODE_ACCESS_GROUPS)


def user_entry(user_arn: str) -> Entry:
    """CAST AI in user mode. Role mode needs no entry."""
    return Entry(MapKey.USERS, user_arn, user_arn.rpartition("/")[2], ADMIN_GROUPS)


def spot_handler_entry(role_arn: str) -> Entry:
    """The spot handler's function."""
    arn = without_path(role_arn)
    return Entry(MapKey.ROLES, arn, arn.rpartition("/")[2], SPOT_HANDLER_GROUPS)


def without_path(role_arn: str) -> str:
    """A role's ARN without its IAM path: STS gives the cluster the ARN in this form."""
    kind, slash, name = role_arn.partition("/")
    return f"{kind}{slash}{name.rpartition('/')[2]}"


def ensure(data: Mapping[str, str] | None, entries: Sequence[Entry]) -> Mapping[str, str] | None:
    """The ConfigMap's data with all entries; the same object if it has them already.

    The data has an entry if it maps the ARN to the entry's user name and at least to its groups.

    Raises AwsAuthError where the text cannot be read, or maps the ARN to something else.
    """
    for entry in entries:
        text = (data or {}).get(entry.map_key)
        refuse = _refusal("Add", entry)
        before = _read(text, refuse)
        if _is_there(entry, before, refuse):
            continue
        edited = _appended(text or "", entry)
        _verify(edited, [*before, entry.as_data()], refuse)
        data = {**(data or {}), entry.map_key.value: edited}
    return data


def remove(data: Mapping[str, str] | None, entries: Sequence[Entry]) -> Mapping[str, str] | None:
    """The ConfigMap's data without the entries; the same object if it has none of them.

    Only an entry that is exactly ours is removed. An entry that maps the ARN in another way stays.

    Raises AwsAuthError where the text cannot be read, or another entry needs this one (a YAML
    anchor).
    """
    for entry in entries:
        text = (data or {}).get(entry.map_key)
        if text is None or data is None:
            continue
        refuse = _refusal("Remove", entry)
        before = _read(text, refuse)
        ours = [position for position, item in enumerate(before) if _is_exactly(entry, item)]
        if not ours:
            continue
        edited = text
        for position in reversed(ours):  # from the end: earlier positions stay valid
            edited = _without(edited, position)
        rest = [item for position, item in enumerate(before) if position not in ours]
        _verify(edited, rest, refuse)
        data = {**data, entry.map_key.value: edited}
    return data


def spot_handler_entries(data: Mapping[str, str] | None) -> list[Entry]:
    """The entries of the form of `spot_handler_entry`, for any role.

    Raises AwsAuthError where the text cannot be read.
    """
    text = (data or {}).get(MapKey.ROLES)
    if text is None:
        return []
    items = _read(text, lambda reason: AwsAuthError(f"Correct {CONFIG_MAP}: {reason}"))
    mapped = [spot_handler_entry(str(item.get("rolearn", ""))) for item in items]
    return [entry for entry, item in zip(mapped, items, strict=True) if _is_exactly(entry, item)]


def render(entry: Entry) -> str:
    """The entry as block YAML, for people to paste."""
    return _block(entry, "", "\n")


# Reading ------------------------------------------------------------------------------------------

Refuse = Callable[[str], AwsAuthError]


def _refusal(verb: str, entry: Entry) -> Refuse:
    where = f"{'to' if verb == 'Add' else 'from'} {entry.map_key} of the ConfigMap {CONFIG_MAP}"

    def refuse(reason: str) -> AwsAuthError:
        return AwsAuthError(
            f"{verb} this entry {where} by hand: {reason}. Nothing was changed.\n\n{render(entry)}"
        )

    return refuse


class _Loader(yaml.SafeLoader):
    """Reads plain scalars as strings, as the authenticator does.

    It refuses a duplicate key, and a tag of another type: PyYAML raises errors of several kinds
    for a value that does not have the type of its tag.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's way of configuration
        first: [(tag, form) for tag, form in resolvers if tag.endswith((":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    yaml_constructors = {  # noqa: RUF012 - as above
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.endswith((":null", ":str", ":seq", ":map"))
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        keys = [key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
        if len(keys) != len(set(keys)):
            raise yaml.constructor.ConstructorError(None, None, "a key twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


_UNREADABLE: Final = (yaml.YAMLError, RecursionError, ValueError)


def has_entries(text: str) -> bool:
    """Whether a key of the ConfigMap holds anything: an empty list means the same as no key."""
    try:
        return bool(_loaded(text))
    except _UNREADABLE:
        return True


def _read(text: str | None, refuse: Refuse) -> list[dict[str, Any]]:
    """The text's entries; none for an empty text.

    Raises AwsAuthError where the text is not a list of maps.
    """
    try:
        loaded = _loaded(text or "")
    except _UNREADABLE as error:
        reason = cut(masked(str(getattr(error, "problem", None) or type(error).__name__)))
        raise refuse(f"its text cannot be read as YAML ({reason})") from error
    if loaded is None:
        return []
    if not isinstance(loaded, list) or not all(isinstance(item, dict) for item in loaded):
        raise refuse("its text is not a list of entries")
    return loaded


@lru_cache(maxsize=8)  # the text that verifies one edit is the start of the next
def _loaded(text: str) -> Any:  # noqa: ANN401 - any YAML; read only
    return yaml.load(_without_tabs(text), Loader=_Loader)  # noqa: S506 - a safe loader's subclass


_TAB_BETWEEN = re.compile(r"(?<=\S)[ \t]+|^[ \t]+$", re.MULTILINE)


def _without_tabs(text: str) -> str:
    """The text with a space for each tab that YAML allows and PyYAML refuses.

    In JSON that is every tab, because a string cannot hold one. In YAML it is every tab that does
    not indent.
    """
    if "\t" not in text:
        return text
    try:
        json.loads(text)
    except ValueError:
        return _TAB_BETWEEN.sub(lambda match: " " * len(match.group()), text)
    return text.replace("\t", " ")


def _is_there(entry: Entry, items: list[dict[str, Any]], refuse: Refuse) -> bool:
    same = [item for item in items if _arn(item, entry.map_key) == entry.arn.lower()]
    if not same:
        return False
    item = same[-1]  # the authenticator keeps the last one
    groups = item.get("groups")
    if (
        item.get("username") != entry.username
        or not isinstance(groups, list)
        or not set(entry.groups) <= set(map(str, groups))
    ):
        raise refuse(f"it maps {entry.arn} already, to another user name or other groups")
    return True


def _is_exactly(entry: Entry, item: dict[str, Any]) -> bool:
    ours = entry.as_data()
    groups = item.get("groups")
    return (
        item.keys() == ours.keys()
        and _arn(item, entry.map_key) == entry.arn.lower()
        and item["username"] == entry.username
        and isinstance(groups, list)
        and sorted(map(str, groups)) == sorted(entry.groups)
    )


def _arn(item: dict[str, Any], kind: MapKey) -> str:
    return str(item.get(_ARN_KEY[kind])).lower()  # the authenticator compares without case


def _verify(edited: str, expected: list[dict[str, Any]], refuse: Refuse) -> None:
    if _read(edited, refuse) != expected:
        raise refuse("its text is written in a way that cannot be edited safely")


# Writing ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Span:
    """A range of the text: `end` is behind the last character."""

    start: int
    end: int


@dataclass(frozen=True)
class _Layout:
    """The positions of a list in the text."""

    flow: bool
    items: tuple[_Span, ...]
    opening: int
    """Behind the opening bracket of a flow list."""
    closing: int
    """Before the closing bracket of a flow list."""
    trailing_comma: int | None = None
    """Behind the comma between the last item and the bracket, where there is one."""


_Token = Any  # PyYAML's stubs have no common type for its tokens
_OPENING = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
_CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)
_SHAPELESS = (yaml.BlockSequenceStartToken, yaml.BlockMappingStartToken, yaml.BlockEndToken)
_BEFORE_THE_ROOT = (
    yaml.StreamStartToken,
    yaml.DirectiveToken,
    yaml.DocumentStartToken,
    yaml.AnchorToken,
    yaml.TagToken,
)


def _layout(tokens: list[_Token]) -> _Layout:
    """The layout of the list with these tokens; the first token opens it."""
    opening = tokens[0]
    flow = isinstance(opening, yaml.FlowSequenceStartToken)
    items: list[list[_Token]] = []
    comma = None
    depth = 0
    for token in tokens[1:]:
        if isinstance(token, _CLOSING):
            if not depth:
                break
            depth -= 1
        elif isinstance(token, _OPENING):
            depth += 1
        if not depth and isinstance(token, yaml.FlowEntryToken):
            comma = token.end_mark.index
        elif not items or comma or (not depth and isinstance(token, yaml.BlockEntryToken)):
            items.append([token])
            comma = None
        else:
            items[-1].append(token)
    return _Layout(
        flow,
        tuple(_span(item) for item in items),
        opening.end_mark.index,
        token.start_mark.index,
        comma,
    )


def _span(tokens: list[_Token]) -> _Span:
    # Tokens that only mark how blocks nest have the position of the next token.
    solid = [token for token in tokens if not isinstance(token, _SHAPELESS)]
    return _Span(solid[0].start_mark.index, solid[-1].end_mark.index)


def _root(text: str) -> list[_Token]:
    """The document's tokens, from the first one with content."""
    tokens = list(yaml.scan(_without_tabs(text)))
    return [*dropwhile(lambda token: isinstance(token, _BEFORE_THE_ROOT), tokens)]


def _appended(text: str, entry: Entry) -> str:
    newline = _newline(text)
    if text.strip() in {"", "[]", "null", "~"}:
        return _block(entry, "", newline)
    tokens = _root(text)
    root = tokens[0]
    if isinstance(root, yaml.ScalarToken):  # null, among comments
        return _replaced(text, root.start_mark.index, root.end_mark.index, f"[{_flow(entry)}]")
    if isinstance(root, yaml.FlowSequenceStartToken):
        return _appended_to_flow(text, _layout(tokens), entry)
    indent = ""
    if isinstance(root, yaml.BlockSequenceStartToken):
        indent = " " * root.start_mark.column
    end = _document_end(text)
    before = text[:end]
    joint = "" if not before or before[-1] in "\r\n" else newline
    block = _block(entry, indent, newline)
    if joint and end == len(text):  # the last line has no line end, before and after
        block = block.removesuffix(newline)
    return f"{before}{joint}{block}{text[end:]}"


def _appended_to_flow(text: str, layout: _Layout, entry: Entry) -> str:
    if not layout.items:
        return _replaced(text, layout.opening, layout.opening, _flow(entry))
    last = layout.items[-1]
    comma = "" if layout.trailing_comma else ","
    between = text[last.end : layout.closing]
    if "\n" not in between:
        position = layout.trailing_comma or last.end
        return _replaced(text, position, position, f"{comma} {_flow(entry)}")
    # The entry gets its own line, behind the comment that may follow the last item.
    line = text[_line_start(text, last.start) : last.start]
    indent = line[: len(line) - len(line.lstrip())]
    kept = between.rstrip()
    new = f"{comma}{kept}{_newline(text)}{indent}{_flow(entry)}{between[len(kept) :]}"
    return _replaced(text, last.end, layout.closing, new)


def _without(text: str, position: int) -> str:
    layout = _layout(_root(text))
    items = layout.items
    item = items[position]
    if not layout.flow:
        start, end = _line_start(text, item.start), _line_end(text, item.end)
        rest = text[:start] + text[end:]
        if len(items) == 1 and _document_end(rest) < len(rest):  # "..." needs a document before it
            return f"{text[:start]}[]{_newline(text)}{text[end:]}"
        if end == len(text) and text[-1] not in "\r\n":
            rest = rest.removesuffix("\n").removesuffix("\r")
        return rest if rest.strip() else "[]"
    if len(items) == 1:
        return _replaced(text, item.start, layout.trailing_comma or item.end, "")
    if position + 1 < len(items):
        return _replaced(text, item.start, items[position + 1].start, "")
    return _replaced(text, items[position - 1].end, item.end, "")


def _block(entry: Entry, indent: str, newline: str) -> str:
    lines = [
        f"- {_ARN_KEY[entry.map_key]}: {_plain(entry.arn)}",
        f"  username: {_plain(entry.username)}",
        "  groups:",
        *(f"    - {_plain(group)}" for group in entry.groups),
    ]
    return "".join(f"{indent}{line}{newline}" for line in lines)


def _flow(entry: Entry) -> str:
    return json.dumps(entry.as_data())


_SAFE_PLAIN = re.compile(r"[A-Za-z][\w:/{}.@+=,-]*[\w}]")


def _plain(value: str) -> str:
    """The value, without quotes where every YAML reader reads it as this string."""
    safe = _SAFE_PLAIN.fullmatch(value) and yaml.safe_load(value) == value
    return value if safe else json.dumps(value)


def _replaced(text: str, start: int, end: int, by: str) -> str:
    return text[:start] + by + text[end:]


_DOCUMENT_END = re.compile(r"^\.\.\.(?=\s|\Z)", re.MULTILINE)


def _document_end(text: str) -> int:
    end = _DOCUMENT_END.search(text)
    return end.start() if end else len(text)


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _line_start(text: str, index: int) -> int:
    return text.rfind("\n", 0, index) + 1


def _line_end(text: str, index: int) -> int:
    """The end of the line with the character before `index`."""
    if text[index - 1] == "\n":  # a block scalar ends with its line
        return index
    return text.find("\n", index) + 1 or len(text)
