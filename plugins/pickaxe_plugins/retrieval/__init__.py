"""Methods that find documents, and methods that judge how well documents were found."""
