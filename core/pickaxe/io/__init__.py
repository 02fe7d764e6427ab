"""Reading items from files and writing results: streaming, in the formats that data sets come in."""
