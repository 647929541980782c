"""Producers: actors that run a source and answer tickets with frames, and the pool that keeps them."""
