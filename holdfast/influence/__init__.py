"""Which training samples push prior knowledge out, how hard, and which way."""
