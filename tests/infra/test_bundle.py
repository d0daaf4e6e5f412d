"""The zip, built for real: what is in it, what is not, and that the handler runs from it alone."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from aws_cdk import App

import app
from stacks.constructs.bundling import LAMBDA, LOCAL, Bundle, BundlingError, Target
from tests.infra.conftest import CONTEXT, ROOT

ZIP_LIMIT = 4_000_000  # bytes
AARCH64 = 0xB7  # ELF e_machine
LOCK = ROOT / "lambdas" / "requirements.txt"
BIG_LOCK = ROOT / "lambdas" / "onboarding" / "requirements.txt"

# What the Lambda runtime has beside the zip: boto3 and what it stands on.
RUNTIME_PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")


def spot(target: Target) -> Bundle:
    return Bundle("spot_handler", LOCK, target)


@pytest.fixture(scope="session", params=[LAMBDA, LOCAL], ids=lambda target: target.name)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param.name)
    spot(request.param).build(folder)
    return folder


def files(folder: Path) -> dict[str, str]:
    """Hashes of all files by path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_zip_is_small(bundle: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in files(bundle):
            archive.write(bundle / name, name)
    assert len(buffer.getvalue()) <= ZIP_LIMIT


def test_it_holds_the_handler_under_its_dotted_path_and_no_other_function(bundle: Path) -> None:
    packages = {path.name for path in (bundle / "lambdas").iterdir()}
    assert packages == {"__init__.py", "common", "spot_handler"}
    assert (bundle / "lambdas" / "spot_handler" / "handler.py").is_file()


def test_it_holds_neither_boto3_nor_what_does_not_run(bundle: Path) -> None:
    found = files(bundle)
    assert not [
        name
        for name in found
        if name.startswith(("boto3", "botocore", "s3transfer", "bin/"))
        or "__pycache__" in name
        or name.endswith((".pyc", "/RECORD", "requirements.txt", "requirements.in", ".lock"))
    ]


def test_every_package_keeps_its_licence(bundle: Path) -> None:
    packages = list(bundle.glob("*.dist-info"))
    assert len(packages) >= 3
    for package in packages:
        assert (package / "METADATA").is_file()
        licences = [*package.rglob("*LICEN[CS]E*"), *package.rglob("COPYING*")]
        assert licences, package.name


def test_no_file_names_the_machine_that_built_it(bundle: Path) -> None:
    machine = (str(ROOT).encode(), sys.prefix.encode(), str(bundle).encode())
    assert not [
        name
        for name in files(bundle)
        if any(place in (bundle / name).read_bytes() for place in machine)
    ]


@pytest.mark.parametrize("target", [LAMBDA, LOCAL], ids=lambda target: target.name)
def test_built_twice_it_is_the_same(target: Target, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        spot(target).build(folder)
    assert files(first) == files(second)


def test_for_lambda_its_machine_code_is_of_lambdas_processor_and_python(tmp_path: Path) -> None:
    spot(LAMBDA).build(tmp_path)
    libraries = list(tmp_path.rglob("*.so"))
    assert libraries
    for library in libraries:
        (machine,) = struct.unpack_from("<H", library.read_bytes(), 18)
        assert machine == AARCH64
        assert ".cpython-314-aarch64-linux-gnu." in library.name


@pytest.mark.parametrize(
    ("package", "lock"),
    [("spot_handler", LOCK), ("onboarding", BIG_LOCK), ("connect", BIG_LOCK)],
)
def test_the_handler_imports_from_the_bundle_and_boto3_alone(
    package: str, lock: Path, tmp_path: Path
) -> None:
    bundled, runtime = tmp_path / "bundle", tmp_path / "runtime"
    Bundle(package, lock, LOCAL).build(bundled)
    runtime.mkdir()
    for name in RUNTIME_PACKAGES:
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        origin = origin.parent if origin.name == "__init__.py" else origin
        (runtime / origin.name).symlink_to(origin)
    script = f"""
import importlib, json, pkgutil, sys
sys.path[:0] = [{str(bundled)!r}, {str(runtime)!r}]
package = importlib.import_module("lambdas.{package}")
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
assert callable(sys.modules["lambdas.{package}.handler"].lambda_handler)
print(json.dumps({{n: m.__file__ for n, m in sys.modules.items() if getattr(m, "__file__", None)}}))
"""
    # -I -S: neither the environment's packages nor this checkout can be seen.
    done = subprocess.run(  # noqa: S603 - the script above
        [sys.executable, "-I", "-S", "-B", "-c", script],
        cwd=tmp_path,
        env={"AWS_DEFAULT_REGION": "eu-central-1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    modules = json.loads(done.stdout)
    assert modules[f"lambdas.{package}.handler"].startswith(str(bundled))
    assert modules["aws_lambda_powertools"].startswith(str(bundled))
    assert modules["botocore"].startswith(str(runtime))


def test_the_fingerprint_follows_sources_lock_and_target() -> None:
    bundle = spot(LAMBDA)
    assert bundle.fingerprint() == spot(LAMBDA).fingerprint()
    others = [
        spot(LOCAL),
        replace(bundle, package="common"),
        replace(bundle, requirements=ROOT / "requirements.txt"),
        replace(bundle, target=replace(LAMBDA, python_version="3.13")),
    ]
    assert len({bundle.fingerprint(), *(other.fingerprint() for other in others)}) == 5


def test_the_code_version_follows_our_sources_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spot(LAMBDA).code_version() == spot(LOCAL).code_version()
    assert (
        replace(spot(LAMBDA), requirements=BIG_LOCK).code_version() == spot(LAMBDA).code_version()
    )
    assert Bundle("connect", BIG_LOCK, LAMBDA).code_version() != spot(LAMBDA).code_version()
    monkeypatch.setattr("stacks.constructs.bundling.ROOT", tmp_path)
    source = tmp_path / "lambdas" / "__init__.py"
    source.parent.mkdir()
    versions = []
    for content in (b"a = 1\nb = 2\n", b"a = 1\r\nb = 2\r\n", b"a = 2\n"):
        source.write_bytes(content)
        versions.append(spot(LAMBDA).code_version())
    assert versions[0] == versions[1] != versions[2]


def test_a_wheel_that_is_missing_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    future = replace(LAMBDA, python_version="3.60")
    with pytest.raises(BundlingError) as caught:
        spot(future).build(tmp_path)
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("Check that lambdas/requirements.txt has a wheel of every package for ")
    assert "Python 3.60 on aarch64" in first
    assert any("msgspec" in line for line in rest)


def test_a_bundle_that_fails_ends_the_synth_and_docker_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise BundlingError("Add the wheel.")

    monkeypatch.setattr(Bundle, "build", fail)
    with pytest.raises(RuntimeError, match=r"BundlingError|Add the wheel\.") as caught:
        app.build(App(outdir=str(tmp_path), context=CONTEXT))
    assert "docker" not in str(caught.value).lower()


def test_the_assembly_holds_the_bundle_under_a_hash_that_other_settings_leave_alone(
    tmp_path: Path,
) -> None:
    assets = set()
    for role in ("create", "import"):
        folder = tmp_path / role
        settings = {"castai:bundling": "local", "castai:spotRole": role}
        cdk_app = App(outdir=str(folder), context=CONTEXT | settings)
        app.build(cdk_app)
        cdk_app.synth()
        (asset,) = folder.glob("asset.*")
        assert (asset / "lambdas" / "spot_handler" / "handler.py").is_file()
        assets.add(asset.name)
    assert len(assets) == 1
