"""What is wrong with a directory, by the checks that conversions make. It writes nothing."""
