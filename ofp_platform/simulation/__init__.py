"""Event streams made or replayed under a simulated clock: seeded, deterministic, in delivery order."""
