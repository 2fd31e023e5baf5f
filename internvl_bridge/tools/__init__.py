"""Drop-in replacements for the conversion scripts of the InternVL repository, with the same flags."""
