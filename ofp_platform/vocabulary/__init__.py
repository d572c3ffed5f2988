"""The words of the plane: envelope, pins, keys, positions, time, decimals, canonical bytes, errors."""
