"""A classifier, a clip and its truth that ship with the project: what `heatreel demo` and many tests explain."""
