"""Remote consoles in a browser: the pages, and the WebSocket behind them, on the API's own address.

A page opens a WebSocket with its token; the guest's host opens a stream to this process over the link, and what comes
on one goes out on the other.  Nothing on a host is open to the network, and the browser needs nothing but this address.
"""

from pileus.app.console.proxy import Console

__all__ = ["Console"]
