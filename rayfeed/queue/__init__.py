"""The consuming end: the window (order, exactly once, bounds), the conductor that drives it, and the public feed."""
