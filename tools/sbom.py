"""Write what each function's zip holds as CycloneDX: `make sbom` → build/sbom/<function>.cdx.json.

The packages are read from the zip as the stacks build it, their hashes from its lock. The same
sources give the same files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from uuid import NAMESPACE_URL, uuid5

import msgspec
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    XsUri,
)
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from stacks.constructs.bundling import LAMBDA, LOCKS, ROOT, Bundle

FOLDER: Final = ROOT / "build" / "sbom"
BUNDLES: Final = {package: Bundle(package, lock, LAMBDA) for package, lock in LOCKS.items()}
_PINNED: Final = re.compile(r"^([\w.-]+)==(\S+)((?:.*\\\n)*.*)", re.MULTILINE)


def sbom(bundle: Bundle) -> str:
    """The SBOM of a zip, as JSON. Raises BundlingError where the zip cannot be built."""
    hashes = _hashes(bundle.requirements.read_text(encoding="utf-8"))
    with TemporaryDirectory() as folder:
        bundle.build(Path(folder))
        found = sorted(distributions(path=[folder]), key=lambda each: each.name)
        components = [_component(each, hashes) for each in found]
    name = f"castai-{bundle.package.replace('_', '-')}"
    function = Component(
        name=name, type=ComponentType.APPLICATION, version=bundle.code_version(), bom_ref=name
    )
    bom = Bom(components=components)
    bom.metadata.component = function
    bom.register_dependency(function, components)
    identity = f"{name} {bundle.code_version()} {bundle.requirements.read_text(encoding='utf-8')}"
    bom.serial_number = uuid5(NAMESPACE_URL, identity)
    written = msgspec.json.decode(JsonV1Dot6(bom).output_as_string())
    del written["metadata"]["timestamp"]  # the same sources give the same file
    return msgspec.json.format(msgspec.json.encode(written), indent=2).decode() + "\n"


def _component(found: Distribution, hashes: Mapping[str, list[str]]) -> Component:
    name, version = found.name.lower().replace("_", "-"), found.version
    archives = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(f"https://pypi.org/project/{name}/{version}/"),
        comment="the archives that the lock allows",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each) for each in hashes[name]],
    )
    purl = PackageURL("pypi", name=name, version=version)
    return Component(
        name=name,
        version=version,
        purl=purl,
        bom_ref=str(purl),
        licenses=list(_licences(found)),
        external_references=[archives],
    )


def _licences(found: Distribution) -> Iterator[License]:
    """The licence as the package's metadata has it: an expression, a name, or its classifiers."""
    make = LicenseFactory()
    every = found.metadata.get_all
    (named, *_) = every("License-Expression") or every("License") or [""]
    if named and "\n" not in named:  # some put the whole text there
        yield make.make_from_string(named)
        return
    for each in every("Classifier") or ():
        if each.startswith("License :: "):
            yield make.make_with_name(each.rpartition(" :: ")[2])


def _hashes(lock: str) -> dict[str, list[str]]:
    """The SHA-256 of each package's archives in a lock."""
    return {
        match[1]: re.findall(r"sha256:([0-9a-f]{64})", match[3]) for match in _PINNED.finditer(lock)
    }


def main() -> None:
    """Write the SBOM of each function."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for package, bundle in BUNDLES.items():
        path = FOLDER / f"{package}.cdx.json"
        path.write_text(sbom(bundle), encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
