"""State in this process alone: the default, and what tests compare the others with."""
