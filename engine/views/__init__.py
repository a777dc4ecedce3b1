"""What people ask the hub. Reads only."""
