"""Server of the page on which people listen to predicted clips and correct them."""
