"""Network drivers: `bridge` for Linux hosts, `fake` in memory."""
