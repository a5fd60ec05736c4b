"""The benchmark: what Millrace does per second and what that costs, compared with others on the same machine."""
