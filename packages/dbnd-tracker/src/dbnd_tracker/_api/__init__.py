"""The HTTP side of the tracker: middleware and routers."""
