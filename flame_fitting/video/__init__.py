"""Videos to pictures and alpha maps: decoding by presentation times, resampling, writing, matting."""
