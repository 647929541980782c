"""Tools that test a cluster, or a change of this library, by running it hard."""
