"""STAR's published checkpoints. Apart from the network: whether one is there is asked without importing torch."""

from flame_fitting.landmarks.weights import WeightFile

WEIGHTS = WeightFile(
    title="STAR",
    names=(
        "300W_STARLoss_NME_2_87.pkl",
        "WFLW_STARLoss_NME_4_02_FR_2_32_AUC_0_605.pkl",
        "WFLW_STARLoss_NME_4_02.pkl",
    ),
    megabytes=246,
    option="--star-weights",
    # Where the authors put the 300W checkpoint. They publish no hash.
    url="https://drive.usercontent.google.com/download?id=1NFcZ9jzql_jnn3ulaSzUlyhS05HWB9n_&export=download&confirm=t",
)
