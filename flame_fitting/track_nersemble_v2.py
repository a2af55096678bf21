"""`track-nersemble-v2`: `track` with the defaults for recordings of NeRSemble's second version."""

from flame_fitting.track import TrackConfig, defaults_of_rig, track

__all__ = ["TrackConfig", "defaults_of_rig", "track"]

if __name__ == "__main__":
    from flame_fitting.cli import main_of

    main_of("track-nersemble-v2")
