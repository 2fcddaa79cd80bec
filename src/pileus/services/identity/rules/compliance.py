"""What an operator may ask of passwords and accounts: form, age, history, lockout, inactivity.

All of it is off unless it is asked for, as upstream's defaults are; options of a user exempt it from one or another.

Source: Keystone administration guide, "Security compliance and PCI-DSS"; "Resource Options" of the Identity API.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from pileus.core.errors import BadRequest

Options = Mapping[str, Any]
"""The options of a user."""


class Compliance(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the same names in `pileus.core.config`; 0 and empty mean that nothing is asked."""

    lockout_failure_attempts: int = 0
    lockout_duration: int = 1800
    password_expires_days: int = 0
    unique_last_password_count: int = 0
    minimum_password_age: int = 0
    password_regex: str = ""
    password_regex_description: str = ""
    change_password_upon_first_use: bool = False
    disable_user_account_days_inactive: int = 0

    def check_form(self, password: str) -> None:
        """Raise BadRequest for a password that is not of the form asked for."""
        if self.password_regex and not re.match(self.password_regex, password):
            wanted = self.password_regex_description or "its form is not the one that this cloud asks for"
            raise BadRequest(f"The password does not match the requirements: {wanted}.")

    def expiry(self, options: Options, now: datetime, *, reset: bool) -> datetime | None:
        """When a password that is set now expires, None for never. `reset`: somebody else than its user sets it."""
        if reset and self.change_password_upon_first_use and not options.get("ignore_change_password_upon_first_use"):
            return now
        if not self.password_expires_days or options.get("ignore_password_expiry"):
            return None
        return now + timedelta(days=self.password_expires_days)

    def locked(self, options: Options, failures: int, failed_at: datetime | None, now: datetime) -> bool:
        """Whether a user is locked out after so many failed logins, the last one at `failed_at`."""
        if not self.lockout_failure_attempts or options.get("ignore_lockout_failure_attempts"):
            return False
        if failures < self.lockout_failure_attempts or failed_at is None:
            return False
        return not self.lockout_duration or failed_at + timedelta(seconds=self.lockout_duration) > now

    def inactive(self, options: Options, active_at: datetime | None, now: datetime) -> bool:
        """Whether a user is disabled because its last login (or, before that, its making) was too long ago."""
        days = self.disable_user_account_days_inactive
        if not days or active_at is None or options.get("ignore_user_inactivity"):
            return False
        return active_at + timedelta(days=days) <= now

    def check_age(self, set_at: datetime | None, now: datetime) -> None:
        """Raise BadRequest when a password which its user set at `set_at` is too young to be changed again."""
        if not self.minimum_password_age or set_at is None:
            return
        left = set_at + timedelta(days=self.minimum_password_age) - now
        if left > timedelta(0):
            raise BadRequest(
                f"The password cannot be changed yet: it must be used for {self.minimum_password_age} days, "
                f"{-(-left // timedelta(days=1))} of which are left. An administrator can reset it."
            )


def expired(options: Options, expires_at: datetime | None, now: datetime) -> bool:
    """Whether a password is of no use any more but for changing it."""
    return expires_at is not None and expires_at <= now and not options.get("ignore_password_expiry")


def factors_suffice(options: Options, methods: Iterable[str], known: Iterable[str]) -> bool:
    """Whether the methods that a user has shown are enough by its rules for several factors.

    As upstream does, what is not among the `known` methods of the cloud is left out of a rule, and rules that consist
    of such alone bind nobody: no user is locked out by a method that was switched off.
    """
    if not options.get("multi_factor_auth_enabled", True):
        return True
    known = set(known)
    rules = [wanted for rule in options.get("multi_factor_auth_rules") or () if (wanted := set(rule) & known)]
    shown = set(methods)
    return not rules or any(wanted <= shown for wanted in rules)
