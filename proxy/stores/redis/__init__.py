"""State shared through Redis or Valkey."""
