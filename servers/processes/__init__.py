"""Processes: what /proc says about them, process groups, and the reaper that ends orphans."""
