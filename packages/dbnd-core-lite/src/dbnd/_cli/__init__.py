"""The ``dbnd`` command."""
