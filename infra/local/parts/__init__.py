"""Provisioning: each module brings one part of the stack into the cache, or finds it on PATH."""
