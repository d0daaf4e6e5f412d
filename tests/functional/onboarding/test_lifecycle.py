"""Create, Update and Delete as CloudFormation sends them."""

from __future__ import annotations

from tests.functional.onboarding.conftest import Scene


def test_user_mode_there_and_back(scene: Scene) -> None:
    before = scene.snapshot()
    data = scene.create()
    print(data, scene.time.slept)
    assert scene.known.credentials["accessKeyId"] in scene.keys("cast-eks-prod")
    scene.delete()
    assert scene.snapshot() == before


def test_role_mode_there_and_back(scene: Scene) -> None:
    before = scene.snapshot()
    data = scene.create(Mode="cross-account-role")
    assert scene.known.credentials["role"] == data["RoleArn"]
    scene.delete(Mode="cross-account-role")
    assert scene.snapshot() == before
