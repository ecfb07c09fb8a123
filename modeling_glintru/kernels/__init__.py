"""Fast forms of the operations in `models/`, for CPUs. Nothing here travels to the Hub."""
