"""The emulator's EC2 resources, for the checks of a request."""

import guard
from authorization import Parameters
from ec2_requests import Ec2Request, Inventory


class Ec2Inventory:
    """Reads the account and the region of the request that the emulator handles."""

    def __init__(self) -> None:
        ec2 = guard.module("ministack.services.ec2")
        self._responses = guard.module("ministack.core.responses")
        guard.function(self._responses, "get_region")
        guard.function(self._responses, "get_account_id")
        self._inventory = Inventory(
            tags=guard.value(ec2, "_tags", object),
            vpcs=guard.value(ec2, "_vpcs", object),
            subnets=guard.value(ec2, "_subnets", object),
            groups=guard.value(ec2, "_security_groups", object),
            interfaces=guard.value(ec2, "_network_interfaces", object),
            key_pairs=guard.value(ec2, "_key_pairs", object),
            default_subnet=guard.value(ec2, "_DEFAULT_SUBNET_ID", str),
        )

    def request(self, params: Parameters) -> Ec2Request:
        """Return the request in its account and region."""
        region, account = self._responses.get_region(), self._responses.get_account_id()
        return Ec2Request(params, self._inventory, region, account)
