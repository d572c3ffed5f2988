"""An example of what trains on published datasets. It reads manifests and nothing else of the plane."""
