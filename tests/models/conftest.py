"""Property tests have no deadline here: how busy the machine is must not decide."""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
