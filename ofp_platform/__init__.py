"""The feature plane: exact, provable windowed features for real-time fraud decisions."""
