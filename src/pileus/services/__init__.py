"""The cloud's services, one folder each, all on the same floor plan."""
