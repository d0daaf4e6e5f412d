"""The built zip: its contents, its bytecode, its size, and an import of the handler from it."""

from __future__ import annotations

import hashlib
import io
import json
import marshal
import os
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.util import MAGIC_NUMBER, cache_from_source, find_spec
from pathlib import Path

import pytest
from aws_cdk import App
from packaging.requirements import Requirement

import app
from stacks.constructs import bundling
from stacks.constructs.bundling import (
    LAMBDA,
    LAMBDA_PLATFORMS,
    LOCAL,
    NOT_COMPILED,
    Bundle,
    BundlingError,
    Target,
    interpreter,
    lambda_target,
)
from tests.infra.conftest import CONTEXT, ROOT
from tools import sbom

ZIP_LIMIT = 2_000_000  # bytes
AARCH64 = 0xB7  # ELF e_machine
LOCK = ROOT / "lambdas" / "requirements.txt"
BIG_LOCK = ROOT / "lambdas" / "onboarding" / "requirements.txt"

ON_LAMBDA = {
    "sys_platform": "linux",
    "platform_machine": "aarch64",
    "python_version": LAMBDA.runtime,
    "python_full_version": f"{LAMBDA.runtime}.0",
}

# The packages of the Lambda runtime: boto3 and its dependencies.
RUNTIME_PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")


def spot(target: Target) -> Bundle:
    return Bundle("spot_handler", LOCK, target)


@pytest.fixture(scope="session", params=[LAMBDA, LOCAL], ids=lambda target: target.name)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param.name)
    spot(request.param).build(folder)
    return folder


def files(folder: Path) -> dict[str, str]:
    """The hash of each file by its path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_zip_is_not_larger_than_its_limit(bundle: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in files(bundle):
            archive.write(bundle / name, name)
    assert len(buffer.getvalue()) <= ZIP_LIMIT


def test_it_has_the_handler_at_its_dotted_path_and_no_other_function(bundle: Path) -> None:
    packages = {path.name for path in (bundle / "lambdas").iterdir()} - {"__pycache__"}
    assert packages == {"__init__.py", "common", "spot_handler"}
    assert (bundle / "lambdas" / "spot_handler" / "handler.py").is_file()


def test_it_has_neither_boto3_nor_files_that_are_not_used_at_run_time(bundle: Path) -> None:
    found = files(bundle)
    assert not [
        name
        for name in found
        if name.startswith(("boto3", "botocore", "s3transfer", "bin/"))
        or name.endswith(("/RECORD", "requirements.txt", "requirements.in", ".lock"))
    ]


def test_every_package_has_its_licence(bundle: Path) -> None:
    packages = list(bundle.glob("*.dist-info"))
    assert len(packages) >= 3
    for package in packages:
        assert (package / "METADATA").is_file()
        licences = [*package.rglob("*LICEN[CS]E*"), *package.rglob("COPYING*")]
        assert licences, package.name


def test_no_file_has_a_path_of_the_build_machine(bundle: Path) -> None:
    machine = (str(ROOT).encode(), sys.prefix.encode(), str(bundle).encode())
    assert not [
        name
        for name in files(bundle)
        if any(place in (bundle / name).read_bytes() for place in machine)
    ]


@pytest.mark.parametrize("target", [LAMBDA, LOCAL], ids=lambda target: target.name)
def test_two_builds_are_the_same(target: Target, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        spot(target).build(folder)
    assert files(first) == files(second)


@pytest.mark.parametrize("python", LAMBDA_PLATFORMS)
def test_its_libraries_are_for_lambdas_processor_and_python(python: str, tmp_path: Path) -> None:
    for package, lock in (("spot_handler", LOCK), ("onboarding", BIG_LOCK)):
        folder = tmp_path / package
        Bundle(package, lock, lambda_target(python)).build(folder)
        libraries = list(folder.rglob("*.so"))
        assert libraries
        for library in libraries:
            (machine,) = struct.unpack_from("<H", library.read_bytes(), 18)
            assert machine == AARCH64
            tag = python.replace(".", "")
            assert f".cpython-{tag}-aarch64-linux-gnu." in library.name


@pytest.fixture(scope="module")
def own_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contents of the zip for a runtime with this interpreter's Python."""
    folder = tmp_path_factory.mktemp("own")
    target = replace(LAMBDA, runtime=f"{sys.version_info.major}.{sys.version_info.minor}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundling, "interpreter", lambda _: sys.executable)
        spot(target).build(folder)
    return folder


def test_its_bytecode_is_used_without_a_check_of_the_source(own_python: Path) -> None:
    skipped = re.compile("|".join(NOT_COMPILED))
    sources = [path for path in own_python.rglob("*.py") if not skipped.search(str(path))]
    assert len(sources) > 100
    for source in sources:
        header = Path(cache_from_source(str(source))).read_bytes()[:16]
        assert header[:4] == MAGIC_NUMBER, source
        assert header[4:8] == (0b01).to_bytes(4, "little"), source  # hash-based, unchecked


def test_sources_that_are_not_compiled_have_no_bytecode(own_python: Path) -> None:
    sources = [str(path) for path in own_python.rglob("*.py")]
    for pattern in NOT_COMPILED:
        found = [source for source in sources if re.search(pattern, source)]
        assert found, f"nothing matches {pattern}"
        assert not [source for source in found if Path(cache_from_source(source)).exists()]


def test_bytecode_has_the_path_of_its_source_in_lambda(own_python: Path) -> None:
    source = own_python / "lambdas" / "spot_handler" / "handler.py"
    code = marshal.loads(Path(cache_from_source(str(source))).read_bytes()[16:])  # noqa: S302 - our own
    assert code.co_filename == "/var/task/lambdas/spot_handler/handler.py"


def test_a_cold_start_compiles_nothing_of_the_zip(tmp_path: Path) -> None:
    spot(LOCAL).build(tmp_path)
    script = f"""
import sys
from importlib.machinery import SourceFileLoader
compiled, compile_source = [], SourceFileLoader.source_to_code
def record(loader, data, path, **more):
    if str(path).startswith({str(tmp_path)!r}):
        compiled.append(path)
    return compile_source(loader, data, path, **more)
SourceFileLoader.source_to_code = record
sys.path.insert(0, {str(tmp_path)!r})
import asyncio, lambdas.spot_handler.handler, lambdas.spot_handler.notify_castai
from lambdas.spot_handler.node_api import NodeApi, transport
from lambdas.common.eks import Token
async def ask():
    async with NodeApi("https://127.0.0.1:1", Token(str), transport("", connections=1)) as api:
        await api.node("any")
try:
    asyncio.run(ask())
except Exception as error:
    assert "ConnectError" in str(error), error
assert sys.modules["lambdas"].__file__.startswith({str(tmp_path)!r})
print("compiled", *compiled)
"""
    done = subprocess.run(  # noqa: S603 - the script above
        [sys.executable, "-P", "-B", "-c", script],
        cwd=tmp_path,
        env={"AWS_LAMBDA_FUNCTION_NAME": "castai-spot-handler", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "compiled\n", done.stderr


def test_without_an_interpreter_it_has_sources_only_and_another_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = []
    for found in ("/usr/bin/python3.14", "/home/else/python3.14", None):
        monkeypatch.setattr(bundling, "interpreter", lambda _, found=found: found)
        hashes.append(spot(LAMBDA).fingerprint())
    assert hashes[0] == hashes[1] != hashes[2]
    spot(LAMBDA).build(tmp_path)
    assert not list(tmp_path.rglob("*.pyc"))


def test_a_source_that_does_not_compile_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "lambdas" / "__init__.py"
    broken.parent.mkdir()
    broken.write_text("match = match match:")
    (tmp_path / "requirements.txt").write_text("")
    monkeypatch.setattr(bundling, "ROOT", tmp_path)
    with pytest.raises(BundlingError) as caught:
        Bundle("spot_handler", tmp_path / "requirements.txt", LOCAL).build(tmp_path / "out")
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("Correct the sources that Python ")
    assert any("SyntaxError" in line for line in rest)


FakeUv = Callable[..., Path]


@pytest.fixture
def fake_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeUv:
    """A uv that records its calls and finds a Python after `found_after` installs, or never."""

    def install(*, found_after: int | None) -> Path:
        log = tmp_path / "calls"
        log.write_text("")
        uv = tmp_path / "uv"
        found = "false" if found_after is None else f'[ "$installed" -ge {found_after} ]'
        uv.write_text(f"""#!/bin/sh
echo "$* retries=$UV_HTTP_RETRIES" >> {log}
installed=$(grep -c "python install" {log})
case "$*" in
  "python find"*) {found} && echo /opt/python3.14 ;;
  *) true ;;
esac
""")
        uv.chmod(0o755)
        monkeypatch.setattr(bundling, "find_uv_bin", lambda: str(uv))
        interpreter.cache_clear()
        return log

    return install


@pytest.fixture(autouse=True)
def clear_interpreters() -> None:
    interpreter.cache_clear()


@pytest.mark.parametrize(
    ("found_after", "path", "calls"),
    [
        (0, "/opt/python3.14", ["find"]),
        (1, "/opt/python3.14", ["find", "install", "find"]),
        (None, None, ["find", "install", "find"]),
    ],
)
def test_an_interpreter_is_searched_once_and_installed_if_it_is_missing(
    found_after: int | None, path: str | None, calls: list[str], fake_uv: FakeUv
) -> None:
    log = fake_uv(found_after=found_after)
    assert interpreter("3.14") == interpreter("3.14") == path
    lines = log.read_text().splitlines()
    assert [line.split()[1] for line in lines] == calls
    assert all("cpython3.14" in line and line.endswith("retries=0") for line in lines)


@pytest.mark.parametrize(
    ("package", "lock"),
    [("spot_handler", LOCK), ("onboarding", BIG_LOCK), ("agent", BIG_LOCK)],
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
    # -I -S: without the environment's packages and this checkout.
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
    if package == "spot_handler":  # its zip has a limit: it holds only the modules that are used
        shared = {path.stem for path in (bundled / "lambdas" / "common").glob("[a-z]*.py")}
        assert {f"lambdas.common.{name}" for name in shared} <= modules.keys()


@pytest.mark.parametrize("package", sbom.BUNDLES)
def test_the_sbom_names_the_packages_of_the_zip_with_licence_and_hashes(package: str) -> None:
    bundle = sbom.BUNDLES[package]
    written = json.loads(sbom.sbom(bundle))
    locked = {}
    for line in bundle.requirements.read_text().splitlines():
        if "==" in line:
            requirement = Requirement(line.removesuffix(" \\"))
            if not requirement.marker or requirement.marker.evaluate(ON_LAMBDA):
                locked[requirement.name] = str(requirement.specifier).removeprefix("==")
    assert {each["name"]: each["version"] for each in written["components"]} == locked
    for each in written["components"]:
        assert each["licenses"], each["name"]
        (archives,) = each["externalReferences"]
        assert all(
            found["content"] in bundle.requirements.read_text() for found in archives["hashes"]
        )
        assert archives["hashes"]


def test_two_sboms_of_the_same_sources_are_the_same() -> None:
    bundle = sbom.BUNDLES["spot_handler"]
    assert sbom.sbom(bundle) == sbom.sbom(bundle)


def test_the_fingerprint_depends_on_sources_lock_and_target() -> None:
    bundle = spot(LAMBDA)
    assert bundle.fingerprint() == spot(LAMBDA).fingerprint()
    others = [
        spot(LOCAL),
        replace(bundle, package="common"),
        replace(bundle, requirements=ROOT / "requirements.txt"),
        replace(bundle, target=lambda_target("3.13")),
    ]
    assert len({bundle.fingerprint(), *(other.fingerprint() for other in others)}) == 5


def test_the_code_version_depends_on_our_sources_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spot(LAMBDA).code_version() == spot(LOCAL).code_version()
    assert (
        replace(spot(LAMBDA), requirements=BIG_LOCK).code_version() == spot(LAMBDA).code_version()
    )
    assert Bundle("agent", BIG_LOCK, LAMBDA).code_version() != spot(LAMBDA).code_version()
    monkeypatch.setattr("stacks.constructs.bundling.ROOT", tmp_path)
    source = tmp_path / "lambdas" / "__init__.py"
    source.parent.mkdir()
    versions = []
    for content in (b"a = 1\nb = 2\n", b"a = 1\r\nb = 2\r\n", b"a = 2\n"):
        source.write_bytes(content)
        versions.append(spot(LAMBDA).code_version())
    assert versions[0] == versions[1] != versions[2]


def test_a_missing_wheel_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    future = replace(LAMBDA, runtime="3.60")
    with pytest.raises(BundlingError) as caught:
        spot(future).build(tmp_path)
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("Check that lambdas/requirements.txt has a wheel of every package for ")
    assert "Python 3.60 on aarch64" in first
    assert any("msgspec" in line for line in rest)


def test_a_bundle_that_fails_ends_the_synth_without_docker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise BundlingError("Add the wheel.")

    monkeypatch.setattr(Bundle, "build", fail)
    with pytest.raises(RuntimeError, match=r"BundlingError|Add the wheel\.") as caught:
        app.build(App(outdir=str(tmp_path), context=CONTEXT))
    assert "docker" not in str(caught.value).lower()


def test_the_asset_hash_of_the_bundle_does_not_depend_on_other_settings(
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
