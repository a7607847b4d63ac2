"Fitting the parametric body to scans and photos."
