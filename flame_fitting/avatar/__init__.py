"""Static avatars: loading, drawing, finding the face, planning views."""
