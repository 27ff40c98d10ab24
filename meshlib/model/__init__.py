"""The model: frozen resources in xDS v3's nouns. Every source ends here; every plan is compiled from here."""
