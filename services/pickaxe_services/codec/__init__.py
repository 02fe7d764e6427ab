"""Data to protobuf and back, both ways; the only place that knows the fields of the messages."""
