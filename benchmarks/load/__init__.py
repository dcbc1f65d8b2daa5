"""The load: workloads, arrival times, and the processes that send the requests."""
