"""The log of usage audits.

https://docs.openstack.org/api-ref/compute/#server-usage-audit-log-os-instance-usage-audit-log

Hosts send no usage audits here, as upstream's do not unless they are told to: the log says of each that it has not run.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pileus.core.api import Resource
from pileus.core.context import Context
from pileus.core.errors import BadRequest
from pileus.core.policy import Rule
from pileus.services.compute.rules.persona import ADMIN
from pileus.services.compute.rules.usage import last_month
from pileus.services.fleet import interface as fleet

RULES = (
    Rule("os_compute_api:os-instance-usage-audit-log:list", ADMIN, "Show the usage audits of the last month"),
    Rule("os_compute_api:os-instance-usage-audit-log:show", ADMIN, "Show the usage audits before a time"),
)

resource = Resource("instance_usage_audit_log", "instance_usage_audit_logs", rules=RULES)


def _log(ctx: Context, before: datetime) -> dict[str, Any]:
    period = last_month(before)
    hosts = [one.name for one in fleet.hosts(ctx.tx, ctx.of(fleet.Fleet))]
    done = "ALL" if not hosts else f"0 of {len(hosts)}"
    return {
        "period_beginning": f"{period.start:%Y-%m-%d %H:%M:%S}",
        "period_ending": f"{period.stop:%Y-%m-%d %H:%M:%S}",
        "num_hosts": len(hosts),
        "num_hosts_done": 0,
        "num_hosts_running": 0,
        "num_hosts_not_run": len(hosts),
        "hosts_not_run": hosts,
        "total_instances": 0,
        "total_errors": 0,
        "overall_status": f"{done} hosts done. 0 errors.",
        "log": {},
    }


@resource.get(
    "/os-instance_usage_audit_log",
    policy="os_compute_api:os-instance-usage-audit-log:list",
    wraps="instance_usage_audit_logs",
)
def list_all(ctx: Context) -> dict[str, Any]:
    """The audits of the last month that is over."""
    return _log(ctx, ctx.now)


@resource.get(
    "/os-instance_usage_audit_log/{before_timestamp}",
    policy="os_compute_api:os-instance-usage-audit-log:show",
    wraps="instance_usage_audit_log",
)
def show(ctx: Context, before_timestamp: str) -> dict[str, Any]:
    """The audits of the last month that was over at a time. Raises BadRequest for what is no time."""
    form = "%Y-%m-%d %H:%M:%S.%f" if "." in before_timestamp else "%Y-%m-%d %H:%M:%S"
    try:
        before = datetime.strptime(before_timestamp, form).replace(tzinfo=UTC)
        return _log(ctx, before)
    except (ValueError, OverflowError):
        raise BadRequest(f"Invalid timestamp for date {before_timestamp}") from None
