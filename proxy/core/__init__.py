"""What Penstock decides: pure functions and small state machines over bytes, values and `now`."""
