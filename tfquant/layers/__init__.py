"""Network layers shared by the codecs."""
