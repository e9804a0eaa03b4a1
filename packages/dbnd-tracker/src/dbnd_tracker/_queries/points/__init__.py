"""The points of metrics: as they were logged, and thinned for charts."""
