"""The benchmark: what Millrace does per second and what that costs, beside others on the same machine."""
