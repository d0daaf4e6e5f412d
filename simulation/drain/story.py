"""Lives a day of the spot handler."""

from __future__ import annotations

import asyncio
import random
from functools import cache

from kubesim.virtual import run_virtual
from lambdas.common import aws as shipped
from lambdas.spot_handler import report
from simulation.drain import aws, regret
from simulation.drain.aws import Aws
from simulation.drain.days import Day, days
from simulation.drain.function import Function
from simulation.drain.judge import Judge
from simulation.drain.timeline import seen, timeline
from simulation.drain.world import World
from simulation.engine import Story, Verdict
from simulation.lambda_runtime import lambda_runtime

AFTERWARDS = 60.0  # s after the last event in which the world is still watched


@cache
def _sdk() -> Aws:
    with aws.environment():
        sdk = Aws()
        sdk.ec2 = sdk.session.create_client("ec2", config=shipped.CONFIG)
    return sdk


async def _live(day: Day) -> tuple[World, Function]:
    world = World(day)
    function = Function(world, _sdk())
    _sdk().answers = function.answer
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: world.strays.append(f"{context['message']}: {context}")
    )
    async with world.cluster:
        await world.begin()
        with lambda_runtime(function.output, report.logger(), day.log_level):
            async with asyncio.TaskGroup() as events:
                returning = [world.returning] if world.returning else []
                for number, delivery in enumerate([*day.deliveries, *returning]):
                    events.create_task(function.deliver(number, delivery))
        await asyncio.sleep(AFTERWARDS)
    return world, function


def live(day: Day) -> tuple[World, Function]:
    """Live a day, in virtual time."""
    random.seed(0)  # the delays between retries
    with aws.environment():
        return run_virtual(_live(day))


def run(day: Day) -> Verdict:
    """Live a day and judge it."""
    world, function = live(day)
    judge = Judge(world, function)
    found = regret.regrets(judge)
    return Verdict(
        faults=[*judge.faults(), *regret.faults(judge, found)],
        timeline=timeline(world, function),
        seen=seen(world, function) + regret.table(found),
    )


def story() -> Story[Day]:
    """The story of the spot handler."""
    return Story("drain", days(), run)
