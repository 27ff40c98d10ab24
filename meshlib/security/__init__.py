"""Who somebody is: SPIFFE IDs and what a certificate says of itself. Pure: values in, values out."""
