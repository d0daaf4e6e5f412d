"""Instance types, their zones, spot prices and the Price List, from `instance_prices.py`.

As on AWS an answer has pages, and a page may be shorter than the request allows. A filter that is
not answered here is refused. The service `pricing` has endpoints in a few regions only.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

import guard
from authorization import Parameters, first
from instance_prices import DATE, SPOT, TYPES, Type

PAGE = 40
SPOT_PAGE = 100
PRICE_LIST_REGIONS = ("us-east-1", "eu-central-1", "ap-south-1", "cn-northwest-1")
_MOST_TYPES = 100  # of a request to DescribeInstanceTypes
_DAY = 86400
_TIME = "%Y-%m-%dT%H:%M:%S.000Z"


class InvalidError(Exception):
    """A request that AWS refuses: its code and message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def page(rows: list[Any], token: str, size: int) -> tuple[list[Any], str]:
    """Return the page that a token begins, and the next page's token; empty: it is the last."""
    if token and not token.isdecimal():
        raise InvalidError("InvalidNextToken", "The token is not valid")
    begin = int(token or 0)
    following = begin + size
    return rows[begin:following], str(following) if following < len(rows) else ""


def described(found: Type) -> dict[str, Any]:
    """Return an item of DescribeInstanceTypes."""
    item: dict[str, Any] = {
        "instanceType": found.name,
        "currentGeneration": True,
        "supportedUsageClasses": ["on-demand", "spot"],
        "bareMetal": False,
        "hypervisor": "nitro",
        "processorInfo": {"supportedArchitectures": [found.family.arch]},
        "vCpuInfo": {"defaultVCpus": found.vcpus},
        "memoryInfo": {"sizeInMiB": int(found.memory * 1024)},
        "networkInfo": {
            "maximumNetworkInterfaces": found.interfaces,
            "maximumNetworkCards": 1,
            "defaultNetworkCardIndex": 0,
            "networkCards": [{"networkCardIndex": 0, "maximumNetworkInterfaces": found.interfaces}],
            "ipv4AddressesPerInterface": found.addresses,
            "ipv6AddressesPerInterface": found.addresses,
        },
        "burstablePerformanceSupported": found.burstable,
    }
    if found.gpus:
        gpu = {"name": "T4", "manufacturer": "NVIDIA", "count": found.gpus}
        item["gpuInfo"] = {"gpus": [gpu], "totalGpuMemoryInMiB": 16384}
    return item


def describe_instance_types(params: Parameters, _region: str) -> dict[str, Any]:
    _refuse_filters(params)
    names = _list(params, "InstanceType")
    unknown = [name for name in names if name not in TYPES]
    if unknown:
        raise InvalidError(
            "InvalidInstanceType",
            f"The following supplied instance types do not exist: [{', '.join(unknown)}]",
        )
    if len(names) > _MOST_TYPES:
        raise InvalidError("InvalidParameterValue", "At most 100 instance types may be given")
    if names and first(params, "MaxResults"):
        raise InvalidError(
            "InvalidParameterCombination",
            "The parameter MaxResults cannot be used with the parameter InstanceTypes",
        )
    rows = [described(TYPES[name]) for name in names or TYPES]
    return _page_of(params, rows, "instanceTypeSet", len(rows) if names else PAGE)


def describe_offerings(params: Parameters, region: str) -> dict[str, Any]:
    _refuse_filters(params)
    kind = first(params, "LocationType") or "region"
    if kind not in ("region", "availability-zone"):
        raise InvalidError("InvalidParameterValue", f"Location type {kind} is not answered here")
    rows = [
        {"instanceType": found.name, "locationType": kind, "location": place}
        for found in TYPES.values()
        for place in ([region] if kind == "region" else _zones(found, region))
    ]
    return _page_of(params, rows, "instanceTypeOfferingSet", PAGE)


def describe_spot_price_history(params: Parameters, region: str) -> dict[str, Any]:
    """Answer the prices between two moments, and the last change before the first, newest first."""
    _refuse_filters(params)
    now = time.time()
    start, end = (_moment(params, name, now) for name in ("StartTime", "EndTime"))
    names, zones = _list(params, "InstanceType"), _list(params, "AvailabilityZone")
    products = _list(params, "ProductDescription") or SPOT
    rows = [
        {
            "instanceType": found.name,
            "productDescription": product,
            "spotPrice": f"{price:.6f}",
            "timestamp": datetime.fromtimestamp(changed, UTC).strftime(_TIME),
            "availabilityZone": zone,
            "availabilityZoneId": f"{region}-az{zone[-1]}",
        }
        for found in TYPES.values()
        if not names or found.name in names
        for product in SPOT
        if product in products
        for zone in _zones(found, region)
        if not zones or zone in zones
        for changed, price in _in_force(found.spot(zone, product), start, end, now)
    ]
    rows.sort(key=lambda row: row["timestamp"], reverse=True)
    return _page_of(params, rows, "spotPriceHistorySet", SPOT_PAGE)


def _in_force(
    changes: Iterator[tuple[int, float]], start: float, end: float, now: float
) -> Iterator[tuple[float, float]]:
    for days, price in changes:
        changed = now - days * _DAY
        if changed <= end:
            yield changed, price
            if changed <= start:
                return


def _zones(found: Type, region: str) -> list[str]:
    return [f"{region}{letter}" for letter in found.family.zones]


def _moment(params: Parameters, name: str, default: float) -> float:
    text = first(params, name)
    if not text:
        return default
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise InvalidError("InvalidParameterValue", f"{name} is not a time: {text}") from None


def _refuse_filters(params: Parameters) -> None:
    if name := first(params, "Filter.1.Name"):
        raise InvalidError("InvalidParameterValue", f"The filter '{name}' is not answered here")


def _list(params: Parameters, name: str) -> list[str]:
    found = [key for key in params if key.startswith(f"{name}.")]
    return [first(params, key) for key in sorted(found, key=lambda key: int(key.split(".")[1]))]


def _page_of(params: Parameters, rows: list[Any], key: str, size: int) -> dict[str, Any]:
    wanted = int(first(params, "MaxResults") or size)
    part, token = page(rows, first(params, "NextToken"), max(1, min(size, wanted)))
    return {key: part, "nextToken": token}


def _xml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "".join(f"<{key}>{_xml(item)}</{key}>" for key, item in value.items())
        case list():
            return "".join(f"<item>{_xml(item)}</item>" for item in value)
    return escape(str(value))


# The Price List


def products(region: str) -> Iterator[dict[str, Any]]:
    """Yield the products of a region: of each type the one for Linux, and some others of it."""
    for found in TYPES.values():
        yield _product(found, region, found.price)
        # An hour of a reservation that is used costs nothing beside its instance.
        for status, price in (
            ("AllocatedCapacityReservation", 0.0),
            ("UnusedCapacityReservation", found.price),
        ):
            yield _product(found, region, price, capacitystatus=status)
        yield _product(found, region, round(found.price * 1.06, 5), tenancy="Dedicated")
        yield _product(
            found, region, found.windows(), operatingSystem="Windows", operation="RunInstances:0002"
        )


def _product(found: Type, region: str, price: float, **differing: str) -> dict[str, Any]:
    attributes = {
        "instanceType": found.name,
        "regionCode": region,
        "locationType": "AWS Region",
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "licenseModel": "No License required",
        "marketoption": "OnDemand",
        "operation": "RunInstances",
        "vcpu": str(found.vcpus),
        "memory": f"{found.memory:g} GiB",
        "currentGeneration": "Yes",
        "servicecode": "AmazonEC2",
        **differing,
    }
    sku = "-".join([found.name, *differing.values()]).upper()
    currency = "CNY" if region.startswith("cn-") else "USD"
    dimension = {
        "unit": "Hrs",
        "beginRange": "0",
        "endRange": "Inf",
        "description": f"{price} {currency} per {found.name} hour, the sandbox's own",
        "appliesTo": [],
        "rateCode": f"{sku}.OD.H",
        "pricePerUnit": {currency: f"{price:.10f}"},
    }
    term = {
        "sku": sku,
        "effectiveDate": f"{DATE}T00:00:00Z",
        "offerTermCode": "OD",
        "priceDimensions": {f"{sku}.OD.H": dimension},
        "termAttributes": {},
    }
    return {
        "product": {"productFamily": "Compute Instance", "attributes": attributes, "sku": sku},
        "serviceCode": "AmazonEC2",
        "terms": {"OnDemand": {f"{sku}.OD": term}},
        "version": DATE.replace("-", ""),
        "publicationDate": f"{DATE}T00:00:00Z",
    }


def price_list(target: str, region: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a request at a region's endpoint. Raises InvalidError for what is not answered."""
    if target != "AWSPriceListService.GetProducts":
        raise InvalidError("UnknownOperationException", "Only GetProducts is answered here")
    if region not in PRICE_LIST_REGIONS:
        raise InvalidError("UnknownEndpoint", f"{region} has no endpoint of pricing")
    return _get_products(request)


def _get_products(request: Mapping[str, Any]) -> dict[str, Any]:
    if request.get("ServiceCode") != "AmazonEC2":
        raise InvalidError("InvalidParameterException", "ServiceCode: must be AmazonEC2 here")
    wanted: dict[str, str] = {}
    known = _product(next(iter(TYPES.values())), "", 0)["product"]["attributes"]
    for each in request.get("Filters", []):
        if each.get("Type") != "TERM_MATCH" or each.get("Field") not in known:
            raise InvalidError("InvalidParameterException", f"Filter {each} is not answered here")
        wanted[each["Field"]] = each["Value"]
    if "regionCode" not in wanted:
        raise InvalidError("InvalidParameterException", "Filter by regionCode here")
    rows = [
        json.dumps(product)
        for product in products(wanted["regionCode"])
        if wanted.items() <= product["product"]["attributes"].items()
    ]
    size = max(1, min(PAGE, int(request.get("MaxResults", PAGE))))
    part, token = page(rows, request.get("NextToken", ""), size)
    answer: dict[str, Any] = {"FormatVersion": "aws_v1", "PriceList": part}
    return answer | ({"NextToken": token} if token else {})


# The emulator

_EC2: dict[str, Callable[[Parameters, str], dict[str, Any]]] = {
    "DescribeInstanceTypes": describe_instance_types,
    "DescribeInstanceTypeOfferings": describe_offerings,
    "DescribeSpotPriceHistory": describe_spot_price_history,
}


def install() -> None:
    """Answer the three calls of EC2, and add the service `pricing` with its authorization."""
    app = guard.module("ministack.app")
    ec2 = guard.module("ministack.services.ec2")
    router = guard.module("ministack.core.router")
    actions = guard.module("ministack.core.iam_actions")
    responses = guard.module("ministack.core.responses")
    guard.function(responses, "get_region")
    guard.function(ec2, "_xml", "status", "root_tag", "inner")
    guard.function(ec2, "_error", "code", "message", "status")

    def ec2_handler(name: str) -> Callable[[Parameters], Any]:
        def handle(params: Parameters) -> Any:
            try:
                answer = _EC2[name](params, responses.get_region())
            except InvalidError as error:
                return ec2._error(error.code, str(error), 400)
            return ec2._xml(200, f"{name}Response", _xml(answer))

        return handle

    guard.value(ec2, "_ACTION_MAP", dict).update({name: ec2_handler(name) for name in _EC2})

    async def pricing(
        _method: str, _path: str, headers: dict[str, str], body: bytes, _query: dict[str, Any]
    ) -> Any:
        try:
            target, region = headers.get("x-amz-target", ""), responses.get_region()
            status, answer = 200, price_list(target, region, json.loads(body or b"{}"))
        except InvalidError as error:
            status, answer = 400, {"__type": error.code, "message": str(error)}
        kind = {"Content-Type": "application/x-amz-json-1.1"}
        return status, kind, json.dumps(answer).encode()

    guard.value(app, "SERVICE_HANDLERS", dict)["pricing"] = pricing
    guard.value(actions, "SERVICE_TO_IAM_NAMESPACE", dict)["pricing"] = "pricing"
    guard.value(router, "SERVICE_PATTERNS", dict)["pricing"] = {
        "target_prefixes": ["AWSPriceListService"],
        "host_patterns": [r"api\.pricing\."],
        "credential_scope": "pricing",
    }
