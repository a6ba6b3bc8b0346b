"""Environment variables that make numerical work faster, wherever its processes are started."""

MALLOC = {"MALLOC_TRIM_THRESHOLD_": "134217728", "MALLOC_MMAP_THRESHOLD_": "33554432"}
"""glibc maps and unmaps every large array otherwise, for up to twice the time (docs/decisions.md); Dask's own setting
makes it so."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
"""Of a worker process: HTCondor sets OMP_NUM_THREADS to the cores of the whole job, login nodes to anything."""
