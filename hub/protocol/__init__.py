"""The client protocol, pure: vocabulary, codecs and the one table of codes. No socket, task or clock."""
