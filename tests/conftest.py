"""What all tests share."""

from hypothesis import settings

# Speed is measured by benchmarks; a busy machine is no fault of the code.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")
