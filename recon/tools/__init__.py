"The demo, the check-up, benchmarks, papermill without an output path."
