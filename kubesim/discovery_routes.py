"""The paths of API discovery."""

from __future__ import annotations

from kubesim import discovery
from kubesim.resources import Obj

_JSON = "application/json"
_HEALTH = ("/healthz", "/livez", "/readyz")


def answer_discovery(path: str, accept: str) -> tuple[Obj | None, str]:
    """Body and content type of a non-resource path; a body of None: the path is not served."""
    path = path.rstrip("/")
    aggregated = "as=APIGroupDiscoveryList" in accept and ";v=v2;" in accept.replace(" ", "")
    if aggregated and path in ("/api", "/apis"):
        return discovery.aggregated(core=path == "/api"), discovery.AGGREGATED
    if path in _HEALTH:
        return {"status": "ok"}, _JSON
    fixed = {
        "": discovery.root,
        "/version": lambda: discovery.VERSION,
        "/api": discovery.core_versions,
        "/apis": discovery.groups,
        "/openapi/v3": discovery.openapi_index,
    }
    if path in fixed:
        return dict(fixed[path]()), _JSON
    return _below(path), _JSON


def _below(path: str) -> Obj | None:
    match path.strip("/").split("/"):
        case ["api", version]:
            return discovery.resource_list("", version)
        case ["apis", group]:
            return discovery.group(group)
        case ["apis", group, version]:
            return discovery.resource_list(group, version)
        case ["openapi", "v3", "api", version]:
            return discovery.openapi("", version)
        case ["openapi", "v3", "apis", group, version]:
            return discovery.openapi(group, version)
        case _:
            return None
