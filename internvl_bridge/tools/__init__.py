"""Drop-in replacements for the two conversion scripts of the InternVL repository. They know only public functions."""
