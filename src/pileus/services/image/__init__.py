"""Image: what guests' disks start from."""
