"""Faults: disturbed networks between the plane and its stores."""
