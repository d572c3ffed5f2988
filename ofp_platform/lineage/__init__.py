"""Where datasets and bundles come from, told to catalogues of others. Nothing of the plane depends on it."""
