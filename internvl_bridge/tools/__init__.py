"""Drop-in replacements for the two conversion scripts of the InternVL repository. They convert nothing themselves."""
