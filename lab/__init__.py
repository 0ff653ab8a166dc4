"""Scaling Lab: how far does clustering take a CPU-bound web server? The names a notebook uses."""
