"Datasets: scans, training points, the file format and its reader."
