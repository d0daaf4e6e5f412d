"""aws-auth: adding and removing an entry changes nothing else, in every form of the text."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lambdas.onboarding import aws_auth
from lambdas.onboarding.aws_auth import AwsAuthError, Entry, MapKey

ACCOUNT = "arn:aws:iam::111122223333"
NODE = aws_auth.node_entry(f"{ACCOUNT}:role/cast-prod-eks-1a2b3c4d")
SPOT = aws_auth.spot_handler_entry(f"{ACCOUNT}:role/CastLambdaRoleForSpot")
USER = aws_auth.user_entry(f"{ACCOUNT}:user/cast-eks-prod")
OURS = [NODE, SPOT, USER]

Items = list[dict[str, Any]]


def roles(text: str) -> dict[str, str]:
    return {"mapRoles": text}


def edited(text: str, entry: Entry = NODE) -> str:
    data = aws_auth.ensure(roles(text), [entry])
    assert data is not None
    return data["mapRoles"]


# The entries --------------------------------------------------------------------------------------


def test_the_entries_are_what_the_cluster_expects() -> None:
    assert NODE.as_data() == {
        "rolearn": f"{ACCOUNT}:role/cast-prod-eks-1a2b3c4d",
        "username": "system:node:{{EC2PrivateDNSName}}",
        "groups": ["system:bootstrappers", "system:nodes"],
    }
    assert USER.as_data() == {
        "userarn": f"{ACCOUNT}:user/cast-eks-prod",
        "username": "cast-eks-prod",
        "groups": ["system:masters"],
    }
    assert SPOT.as_data()["groups"] == ["castai:spot-handler"]


def test_an_entry_has_a_role_without_its_path_and_a_user_with_it() -> None:
    assert aws_auth.node_entry(f"{ACCOUNT}:role/a/b/nodes").arn == f"{ACCOUNT}:role/nodes"
    user = aws_auth.user_entry(f"{ACCOUNT}:user/a/cast-eks-prod")
    assert (user.arn, user.username) == (f"{ACCOUNT}:user/a/cast-eks-prod", "cast-eks-prod")


# Ten thousand maps --------------------------------------------------------------------------------

MAPS, PARTS = 10_000, 100
WORDS = [
    "system:masters",
    "system:node:{{EC2PrivateDNSName}}",
    "admin:{{SessionName}}",
    "team a",
    "#1",
    "yes",
    "0123",
    "null",
    "größe",
    "it's",
    '"quoted"',
    "a: b",
    "[x]",
    "*star",
    "- dash",
]


def some_items(rng: random.Random, kind: MapKey) -> Items:
    arn_key = {MapKey.ROLES: "rolearn", MapKey.USERS: "userarn"}[kind]
    items: Items = []
    for number in range(rng.choice([0, 1, 1, 2, 3])):
        item: dict[str, Any] = {
            "groups": rng.sample(WORDS, rng.choice([0, 1, 1, 2])),
            arn_key: f"{ACCOUNT}:{arn_key[:4]}/team/{number}",
            "username": rng.choice(WORDS),
        }
        if rng.random() < 0.1:
            item["note"] = rng.choice(WORDS)
        items.append(dict(rng.sample(sorted(item.items()), len(item))))
    if items and rng.random() < 0.1:
        items.append(rng.choice(items))  # the same item twice: YAML writes an anchor
    if rng.random() < 0.2:
        ours = rng.choice([entry for entry in OURS if entry.map_key == kind]).as_data()
        items.insert(rng.randint(0, len(items)), ours)
    return items


def block(items: Items, rng: random.Random) -> str:
    text: str = yaml.safe_dump(
        items,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=rng.choice([False, None]),
        default_style=rng.choice([None, None, '"', "'"]),
        indent=rng.choice([2, 4]),
        width=rng.choice([40, 200]),
    )
    if rng.random() < 0.3:
        text = "".join(f"  {line}" for line in text.splitlines(keepends=True))
    return text


def flow(items: Items, rng: random.Random) -> str:
    return str(
        yaml.safe_dump(
            items, default_flow_style=True, allow_unicode=True, width=rng.choice([40, 500])
        )
    )


def as_json(items: Items, rng: random.Random) -> str:
    indent = rng.choice([None, 1, 2, 4, "\t"])
    separators = rng.choice([None, (",", ":")])
    ascii_only = rng.random() < 0.5
    return json.dumps(items, indent=indent, separators=separators, ensure_ascii=ascii_only)


def commented(text: str, rng: random.Random) -> str:
    """Add comments, blank lines and spaces where YAML allows them."""
    lines = []
    for line in text.splitlines():
        if re.match(r" *- ", line) and rng.random() < 0.5:
            lines.append(rng.choice(["# owner: team", "", "   # - rolearn: old", "  "]))
        safe = not re.search(r"""["'|>\[{]""", line) and ":" in line
        lines.append(line + (rng.choice(["", " # why", "  ", "\t"]) if safe else ""))
    return "\n".join(lines) + "\n"


def framed(text: str, rng: random.Random) -> str:
    if rng.random() < 0.1:
        text = "---\n" + text
    if rng.random() < 0.1:
        text = text.rstrip("\n") + "\n...\n"
    if rng.random() < 0.2:
        text = text.rstrip("\n")
    elif rng.random() < 0.1:
        text += "\n\n# the end"
    return text.replace("\n", "\r\n") if rng.random() < 0.2 else text


def written(items: Items, rng: random.Random) -> str:
    """Write the items in one of the forms that users and tools write."""
    form = rng.choice(["block", "block", "commented", "flow", "json"])
    if not items and rng.random() < 0.5:
        return rng.choice(["", "[]", " \n", "null", "~", "# none\n", "[] # none\n", "---\n"])
    if form == "json":
        return as_json(items, rng)
    if form == "flow":
        return framed(flow(items, rng), rng)
    text = block(items, rng)
    return framed(commented(text, rng) if form == "commented" else text, rng)


def read(text: str) -> Items:
    """Read the text without the module's reader, with every scalar as a string."""
    try:
        return list(json.loads(text))
    except ValueError:
        text = re.sub(r"\t$", "", text, flags=re.MULTILINE).replace("\t\r", "\r")
        return list(yaml.load(text, Loader=yaml.CBaseLoader) or [])  # noqa: S506 - strings only


def read_map(text: str | None) -> Items:
    return [] if (text or "").strip() in {"", "null", "~"} else read(str(text))


def comments(text: str) -> list[str]:
    return re.findall(r"# (?:owner: team|- rolearn: old|why|none|the end)", text)


@pytest.mark.parametrize(
    "part", [0, *(pytest.param(part, marks=pytest.mark.long) for part in range(1, PARTS))]
)
def test_in_ten_thousand_maps_only_our_entries_are_added_and_removed(part: int) -> None:
    for seed in range(part * MAPS // PARTS, (part + 1) * MAPS // PARTS):
        rng = random.Random(seed)  # noqa: S311 - the same maps every time
        items = {kind: some_items(rng, kind) for kind in MapKey}
        data = {"mapAccounts": "- '111122223333'\n"}
        for kind in rng.sample(list(MapKey), rng.randint(0, 2)):
            data[kind.value] = written(items[kind], rng)
        check(data, rng.sample(OURS, rng.choice([1, 1, 2])), seed)


def check(data: Mapping[str, str], entries: list[Entry], seed: int) -> None:
    after = aws_auth.ensure(data, entries)
    assert after is not None
    assert aws_auth.ensure(after, entries) is after, seed
    assert list(after)[: len(data)] == list(data), seed
    gone = aws_auth.remove(after, entries)
    assert gone is not None
    assert aws_auth.remove(gone, entries) is gone, seed
    for key in after.keys() - {kind.value for kind in MapKey}:
        assert after[key] == gone[key] == data[key], seed
    for kind in MapKey:
        ours = [entry.as_data() for entry in entries if entry.map_key == kind]
        before = read_map(data.get(kind))
        missing = [item for item in ours if item not in before]
        assert read_map(after.get(kind)) == before + missing, seed
        assert comments(after.get(kind, "")) == comments(data.get(kind, "")), seed
        rest = [item for item in before if item not in ours]
        assert read_map(gone.get(kind)) == rest, seed
        if not missing:
            assert after.get(kind) == data.get(kind), seed


@settings(max_examples=200, deadline=None)
@example("- rolearn: x\n\u2028")
@example("%YAML 1.1\n---\n- rolearn: x\n")
@example("- - rolearn\n")
@example("- ? rolearn\n  : x\n")
@example("- |\n  rolearn: x\n")
@given(st.text(alphabet=st.sampled_from("-: \n\r\t#[]{},'\"|>&*!%?~ax\u00e9\ufeff"), max_size=60))
def test_any_text_is_edited_correctly_or_refused(text: str) -> None:
    for edit in (aws_auth.ensure, aws_auth.remove):
        try:
            after = edit(roles(text), [NODE])
        except AwsAuthError as error:
            assert str(error).endswith(aws_auth.render(NODE))  # noqa: PT017 - both are correct
        else:
            assert after is not None
            again = edit(after, [NODE])
            assert again is after


# Written forms ------------------------------------------------------------------------------------


def test_a_missing_config_map_or_key_gets_our_entry_only() -> None:
    for data in (None, {}):
        assert aws_auth.ensure(data, [NODE]) == roles(aws_auth.render(NODE))
    assert aws_auth.ensure(None, [USER]) == {"mapUsers": aws_auth.render(USER)}


def test_without_a_change_the_same_object_is_returned() -> None:
    data = roles(aws_auth.render(NODE))
    assert aws_auth.ensure(data, [NODE]) is data
    assert aws_auth.remove(data, [SPOT]) is data
    assert aws_auth.ensure(None, []) is None
    assert aws_auth.remove(None, [NODE]) is None


def test_an_entry_is_appended_to_block_yaml_without_another_change() -> None:
    text = "# managed by platform\n- rolearn: x   # do not touch\n  groups: [a]\n\n# end\n"
    assert edited(text) == text + aws_auth.render(NODE)


def test_the_entry_has_the_indentation_and_the_line_ends_of_the_list() -> None:
    lines = edited("  - rolearn: x\r\n    username: y\r\n").split("\r\n")
    assert lines[2] == f"  - rolearn: {NODE.arn}"
    assert lines[-1] == ""
    assert not any("\n" in line for line in lines)


def test_json_is_edited_as_json() -> None:
    for text in ('[{"rolearn":"x"}]', '[\n\t{\n\t\t"rolearn": "x"\n\t}\n]\n', "[]", "[ ]"):
        after = edited(text)
        if text != "[]":
            assert json.loads(after)[-1] == NODE.as_data()
        assert read(after)[-1] == NODE.as_data()


def test_a_flow_list_keeps_its_comments_and_may_end_in_a_comma() -> None:
    text = "[{rolearn: x}, # one\n {rolearn: y}, # two\n]\n"
    after = edited(text)
    assert after.startswith("[{rolearn: x}, # one\n {rolearn: y}, # two\n {")
    assert read(after)[-1] == NODE.as_data()


def test_remove_removes_duplicates_of_our_entry() -> None:
    twice = aws_auth.render(NODE) * 2 + aws_auth.render(SPOT)
    assert aws_auth.remove(roles(twice), [NODE]) == roles(aws_auth.render(SPOT))


def test_removing_the_last_entry_leaves_an_empty_list() -> None:
    assert aws_auth.remove(roles(aws_auth.render(NODE)), [NODE]) == roles("[]")


# Our entries --------------------------------------------------------------------------------------


def test_an_entry_with_more_groups_or_in_another_case_counts_as_ours() -> None:
    text = aws_auth.render(NODE).replace("system:nodes", "system:nodes\n    - more").upper()
    text = text.replace("ROLEARN", "rolearn").replace("GROUPS", "groups")
    text = text.replace("USERNAME", "username").replace("SYSTEM:", "system:")
    text = text.replace("NODE:{{EC2PRIVATEDNSNAME}}", "node:{{EC2PrivateDNSName}}")
    text = text.replace("BOOTSTRAPPERS", "bootstrappers").replace("NODES", "nodes")
    data = roles(text)
    assert NODE.arn not in text
    assert aws_auth.ensure(data, [NODE]) is data


@pytest.mark.parametrize(
    "change",
    [
        ("system:nodes", "system:readers"),
        ("system:node:", "node:"),
        ("  groups:\n    - system:bootstrappers\n    - system:nodes\n", ""),
        ("groups:\n    - system:bootstrappers\n    - system:nodes", "groups: system:nodes"),
    ],
)
def test_an_arn_that_is_mapped_to_something_else_is_refused(change: tuple[str, str]) -> None:
    text = aws_auth.render(NODE).replace(*change)
    with pytest.raises(AwsAuthError, match=r"maps .* already"):
        aws_auth.ensure(roles(text), [NODE])


def test_of_two_entries_the_last_one_counts_as_in_aws_iam_authenticator() -> None:
    other = aws_auth.render(NODE).replace("system:nodes", "system:readers")
    data = roles(other + aws_auth.render(NODE))
    assert aws_auth.ensure(data, [NODE]) is data
    with pytest.raises(AwsAuthError, match=r"maps .* already"):
        aws_auth.ensure(roles(aws_auth.render(NODE) + other), [NODE])


def test_an_entry_that_others_changed_is_not_removed() -> None:
    for change in (
        ("system:nodes", "system:nodes\n    - more"),
        ("  groups", "  note: x\n  groups"),
    ):
        data = roles(aws_auth.render(NODE).replace(*change))
        assert aws_auth.remove(data, [NODE]) is data


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("- rolearn: [x\n", "cannot be read as YAML"),
        ("- rolearn: x\n\tusername: y\n", "cannot be read as YAML"),
        ("- rolearn: x\n  rolearn: y\n", "a key twice"),
        ("- a: 1\n---\n- b: 2\n", "cannot be read as YAML"),
        ("- !!python/object:os.system x\n", "cannot be read as YAML"),
        ("- &a [*a]\n", "not a list of entries"),
        ("rolearn: x\n", "not a list of entries"),
        ("just text", "not a list of entries"),
        ("- just text\n", "not a list of entries"),
        ("-\n", "not a list of entries"),
    ],
)
def test_text_that_cannot_be_read_is_refused_with_the_entry_to_add_by_hand(
    text: str, reason: str
) -> None:
    for edit, verb in ((aws_auth.ensure, "Add"), (aws_auth.remove, "Remove")):
        with pytest.raises(AwsAuthError, match=reason) as refused:
            edit(roles(text), [NODE])
        message = str(refused.value)
        assert message.startswith(f"{verb} this entry ")
        assert "mapRoles of the ConfigMap kube-system/aws-auth by hand" in message
        assert message.endswith(aws_auth.render(NODE))


def test_an_entry_whose_anchor_is_used_is_not_removed() -> None:
    text = aws_auth.render(NODE).replace("groups:", "groups: &nodes")
    text += "- rolearn: x\n  groups: *nodes\n"
    with pytest.raises(AwsAuthError, match="Remove this entry"):
        aws_auth.remove(roles(text), [NODE])


def test_an_edit_that_would_change_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(change: Callable[[str], str]) -> None:
        monkeypatch.setattr(aws_auth, "_appended", lambda text, _entry: change(text))
        with pytest.raises(AwsAuthError, match="cannot be edited safely"):
            aws_auth.ensure(roles("- rolearn: x\n"), [NODE])

    wrong(lambda text: text)
    wrong(lambda text: aws_auth.render(NODE) + text)
    wrong(lambda _: aws_auth.render(NODE))
    wrong(lambda text: text.replace("x", "y") + aws_auth.render(NODE))


def test_the_entry_to_add_by_hand_is_valid_yaml() -> None:
    for entry in OURS:
        assert read(aws_auth.render(entry)) == [entry.as_data()]
