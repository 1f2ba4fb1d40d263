"""What providers say: the catalogue as data, and the readers of their usage and errors. Pure."""
