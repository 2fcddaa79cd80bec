"""What the texts of specs are made of: types whose values a host refuses to read where they hold any other sign.

Much of a spec ends in what root's programs read: rules of the packet filter, files of the DHCP service, arguments.
The control plane writes nothing else than what these let through; should its store hold such a thing all the same, the
host reports that one object as failed, and renders nothing of it.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from pileus.core.address import ADDRESS

Identifier = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")]
"""An id of the control plane's, which may be part of a path, of a rule and of an interface's name."""

Digest = Annotated[str, Meta(pattern=r"\A[0-9A-Fa-f]{1,128}\Z")]
"""A hash in hexadecimal."""

AddressText = Annotated[str, Meta(pattern=rf"\A{ADDRESS}\Z")]
"""An IP address."""

PrefixText = Annotated[str, Meta(pattern=rf"\A{ADDRESS}/[0-9]{{1,3}}\Z")]
"""A CIDR, or an address with the length of the prefix that it is in."""

RangeText = Annotated[str, Meta(pattern=rf"\A{ADDRESS}(/[0-9]{{1,3}})?\Z")]
"""An IP address or a CIDR."""

MacText = Annotated[str, Meta(pattern=r"\A[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}\Z")]
"""A MAC address with colons."""

NameText = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{0,255}\Z")]
"""The name of a host or of a domain, or none."""

OptionName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.:-]{1,64}\Z")]
"""The name or number of a DHCP option."""

Line = Annotated[str, Meta(max_length=255, pattern=r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z")]
"""Text without a line break or any other control character."""
