"""Sources: where configuration comes from. Each turns what it is told into `Snapshot`s and hands them to a sink."""
