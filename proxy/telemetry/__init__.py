"""What Penstock tells of itself."""
