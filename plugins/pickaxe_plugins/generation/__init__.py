"""Methods that write text: rephrasing, and answering with retrieved documents."""
