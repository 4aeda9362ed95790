from hypothesis import settings

# The first call of a packer may compile it, which takes longer than any deadline.
settings.register_profile("compiled", deadline=None)
settings.load_profile("compiled")
