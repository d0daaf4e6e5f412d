"""The refusal of a removal names the resources that are in use, one or many."""

from __future__ import annotations

import pytest

from lambdas.onboarding.in_use import SHOWN, refusal

NODES = (
    "Remove the nodes that CAST AI added first (in CAST AI's console, or drain and terminate them)."
)
RULES = "Remove the rules first that name the nodes' security group in other security groups."

MANY = (
    "Nothing was changed. In use by 2 instances and 1 other network interface and 2 other security "
    "groups"
)


@pytest.mark.parametrize(
    ("instances", "interfaces", "naming", "words"),
    [
        (["i-1"], [], [], f"{NODES} Nothing was changed. In use by 1 instance: i-1"),
        ([], ["eni-1"], [], f"{NODES} Nothing was changed. In use by 1 network interface: eni-1"),
        ([], [], ["sg-1"], f"{RULES} Nothing was changed. In use by 1 other security group: sg-1"),
        (
            ["i-1", "i-2"],
            ["eni-1"],
            ["sg-1", "sg-2"],
            f"{NODES} {RULES} {MANY}: i-1, i-2, eni-1, sg-1, sg-2",
        ),
    ],
)
def test_the_refusal_counts_and_names_the_resources_of_each_kind(
    instances: list[str], interfaces: list[str], naming: list[str], words: str
) -> None:
    assert refusal(instances, interfaces, naming) == words


def test_a_long_list_is_cut_with_the_number_of_the_rest() -> None:
    many = [f"i-{number:02}" for number in range(SHOWN + 3)]
    assert refusal(many, [], []).endswith(
        f"In use by 13 instances: {', '.join(many[:SHOWN])} and 3 more"
    )
