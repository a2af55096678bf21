"""What the words of a report mean: short and plain."""

TERMS = {
    "reprojection_px": "How far the fitted head's landmarks are from the detected ones in the pictures.",
    "error_mm": "The same in space: from the landmarks that were lifted from the pictures to those on the fitted head.",
    "spread_mm": "How far the views disagree on where one landmark is in space: the detector's own error.",
    "silhouette_iou": "Area that the outlines of avatar and fitted head share, over the area that either covers; 1 is "
    "perfect. Everything above the line where the neck ends counts.",
    "silhouette_iou_head": "The same above the sides of the neck. Hair and clothes make it small: the head has none.",
    "psnr_heldout_db": "How alike colours are in views that the fit never saw; 6 dB more is half the difference. The "
    "whole avatar counts.",
    "psnr_heldout_above_neck_db": "The same for what lies above the sides of the neck.",
    "worst_timestep": "The moment in which landmarks are farthest off; its picture stands first below.",
    "psnr_by_timestep": "How alike colours are on the fitted head, moment by moment.",
    "jitter": "How much a motion changes from picture to picture. It grows with real motion, so compare only fits of "
    "one recording.",
    "swimming": "How much the colour of a spot of the skin changes over time. High values mean that the head slides "
    "over the face.",
    "no_face": "No picture of these moments shows a face; their neighbours carry the head there.",
    "heldout": "What the fit was not shown, beside what it was: a large gap means that it learnt pictures by heart.",
    "drawn": "Of long recordings only some pictures are drawn and measured, spread evenly.",
    "moment": "Distance of the face to the avatar at this moment.",
    "hidden": "Vertices that no view shows, such as the inside of the mouth.",
    "flipped_triangles": "Triangles that offsets have turned over or folded. Any is a fault.",
    "shape_rms": "How unusual the head is among the model's people: 1 is an everyday head, in standard deviations.",
    "not_at_rest": "What of the face the pictures show moving: shut eyes, an open mouth. Expression takes it up, so "
    "that the neutral head is at rest.",
    "scale": "How large the avatar is, and how that was found out.",
    "sources": "The detectors that found the landmarks, and the hash of their weights.",
    "head_model": "The head model that was fitted.",
    "to_avatar_mm": "From each vertex of the fitted head to the nearest point of the avatar's surface that some view "
    "shows.",
    "from_avatar_mm": "From each seen point of the avatar to the fitted head. Hair, glasses and clothes have no "
    "counterpart on the head, so this is larger.",
    "to_truth_mm": "From each vertex to where it truly is; known of made-up avatars only.",
    "median": "Half of it is nearer, half is farther.",
    "p95": "95 % is nearer than this.",
    "stages": "A fit goes through these stages. One that made it worse was taken back.",
    "sanity": "Triangles that pass through others or are turned inside out show as dark spots and break animation. "
    "Head models cross themselves a little as they come, so compare with the columns beside.",
    "losses": "What a stage makes small, step by step. Falling and flat at the end is what it should be; stages do "
    "not compare with each other, nor do sizes of pictures within one: a jump is where they change. Logarithmic.",
    "texture": "The colours of the fitted head, unwrapped.",
}
"""By the keys of metrics.json where there is one."""
