"""The main job on real input, from a mixed corpus to an answer, through a server on loopback."""
