"""State, behind the ports: one package per technology."""
