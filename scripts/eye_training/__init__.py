"""How the network that looks at eyes is trained."""
