"""What the tests of all examples ask of a figure."""


def assert_is_picture(path):
    """Check that a file is a PNG with something on it."""
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) > 10_000
