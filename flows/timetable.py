"""When an experiment runs by itself: `schedule:` in its file, which no stage key has."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from prefect.client.schemas.schedules import CronSchedule
from prefect.schedules import Schedule
from prefect.types._datetime import get_timezones
from pydantic import AfterValidator, ValidationError, model_validator

from holdfast.config.base import Config

UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
LENGTH = re.compile(rf"([1-9]\d{{0,3}}) ?([{''.join(UNITS)}])")
ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)
"""From where intervals count, so that offering an experiment again moves nothing."""


def _cron(text: str) -> str:
    try:
        return CronSchedule(cron=text).cron
    except ValidationError:
        raise ValueError(f"{text!r} is no cron line; write five fields such as '0 3 * * 1'") from None


def _length(text: str) -> str:
    if not LENGTH.fullmatch(text):
        raise ValueError(f"{text!r} is no length of time; write minutes, hours, days or weeks, such as 90m, 6h, 1d, 2w")
    return text


def _timezone(name: str) -> str:
    if name not in get_timezones():
        raise ValueError(f"{name!r} is no time zone; write one such as Europe/Berlin or UTC")
    return name


class Timetable(Config):
    """Either a cron line or an interval."""

    cron: Annotated[str, AfterValidator(_cron)] | None = None
    """Minute, hour, day of the month, month, day of the week: `0 3 * * 1` is every Monday at three."""
    interval: Annotated[str, AfterValidator(_length)] | None = None
    """`90m`, `6h`, `1d` or `2w`, counted from the start of 2026 in the time zone."""
    timezone: Annotated[str, AfterValidator(_timezone)] = "UTC"

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.cron is None) == (self.interval is None):
            raise ValueError("set cron or interval, one of them")
        return self

    def schedule(self) -> Schedule:
        """As Prefect has it."""
        if self.interval is None:
            return Schedule(cron=self.cron, timezone=self.timezone)
        found = LENGTH.fullmatch(self.interval)
        assert found is not None
        length = timedelta(**{UNITS[found[2]]: int(found[1])})
        return Schedule(interval=length, timezone=self.timezone, anchor_date=ANCHOR)


class Scheduled(Config):
    """The field of an experiment file."""

    schedule: Timetable
