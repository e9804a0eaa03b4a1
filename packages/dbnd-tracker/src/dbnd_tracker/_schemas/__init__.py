"""The bodies of the tracking calls, as strict as the original schemas and lenient where its clients are loose."""
