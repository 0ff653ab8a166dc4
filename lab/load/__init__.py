"""Offer load on a schedule, and record what became of every request.

Nothing is imported here: a generator starts with every attack, and needs little of it.
"""
