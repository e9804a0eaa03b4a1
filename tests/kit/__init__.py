"""The kit of tests that span packages: faults to inject, and processes to inject them into."""
