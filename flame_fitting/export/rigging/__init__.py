"""The user's own avatar, rigged by its fitted head: skin weights, joints and morph targets."""
